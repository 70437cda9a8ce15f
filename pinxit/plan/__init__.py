"""`pinxit plan`: what a run takes in memory, time and money, by the vendor's own compiler."""
