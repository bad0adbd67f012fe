//! The table of `scorefront check`.
