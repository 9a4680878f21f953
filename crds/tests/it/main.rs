//! The generated CRDs: in step with their YAML, in good taste, and with examples that hold.

mod examples;
mod generated;
mod taste;
