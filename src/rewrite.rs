//! Meaning: cql × topology. Bytes in, decision out; no I/O, no clock.
