"""Methods that replace, remove or exchange parts of what the decoder or the tower reads."""
