"""How bars that nobody traded are told from real ones, wherever they are shown."""

# The source that is stored with them, and the word that people see.
INVENTED = "synthetic"
MARK = "SYNTHETIC"
