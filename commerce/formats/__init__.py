"""How admin writes moments, in every language: to the second, because events are looked for by them."""
