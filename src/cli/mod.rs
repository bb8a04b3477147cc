//! Command line: what was typed, and what is printed. It decides nothing.
