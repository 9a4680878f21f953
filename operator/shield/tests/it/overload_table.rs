//! The figures beside those of other limits, printed with `--nocapture` for a look.
