"""What a run takes before anything is spent: memory, time, money, by the vendor's compiler."""
