"""Attribution classes of Captum by name."""
