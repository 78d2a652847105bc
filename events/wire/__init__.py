"""What an event is made of on its way: a message's fields, headers, ids, times and text."""
