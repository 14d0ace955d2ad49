package db

// InformResourcesSQL is the statement of sets.
const InformResourcesSQL = informResources

// InformPage is how many objects it takes.
const InformPage = informPage
