"""E-mail about notifications: composing a message, sending it, and links that turn mails off."""
