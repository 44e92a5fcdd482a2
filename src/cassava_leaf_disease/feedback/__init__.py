"""What people say of the answers: consented photos and corrections, kept, forgotten on request, and exported."""
