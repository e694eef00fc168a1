//! The rules of the fold, by table.
