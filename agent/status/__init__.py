"""What is shown of the running agent: snapshot.build() is what all the others draw."""
