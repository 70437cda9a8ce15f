"""Networks and counts that turn a picture into numbers, from which all figures are computed."""
