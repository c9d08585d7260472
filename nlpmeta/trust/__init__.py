"""How far an adapted model can be trusted: label sets, texts out of scope, tasks unlike the known ones."""
