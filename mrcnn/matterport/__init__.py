"""Names that only Matterport's notebooks and the scripts written for it need."""
