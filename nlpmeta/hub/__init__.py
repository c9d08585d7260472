"""Moves a folder of files to and from the Hugging Face Hub; what is in the folder is nobody's business here."""
