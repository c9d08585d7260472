"""``FewShotClassifier``: fit, predict, teach, save and load."""
