"""What the operator's page shows and takes: the part behind `skrd4ad serve`."""
