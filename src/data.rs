//! The path of a request: accept, connection, exchange, admit, forward, respond.
