//! Local training and evaluation. Steps 2 and 11 of the round.
