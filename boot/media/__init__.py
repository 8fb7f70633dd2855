"""Media that machines boot from: sticks and disk images, made without root and without loop devices."""
