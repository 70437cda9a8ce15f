"""Pictures with captions in files beside them: folders and WebDataset tars."""
