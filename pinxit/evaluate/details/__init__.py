"""Details of pictures of scenes, counted in their pixels, and their variety from seed to seed."""
