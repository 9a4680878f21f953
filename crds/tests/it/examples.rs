//! One good example per kind, and bad ones named after the rule they break.
