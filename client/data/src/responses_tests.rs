//! Templates in each of the ways to find the assistant's turns, and what each leaves out.
