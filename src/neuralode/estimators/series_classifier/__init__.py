"""Classification of irregular series with recurrent networks."""
