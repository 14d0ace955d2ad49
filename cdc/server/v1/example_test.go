package v1_test

import (
	"log"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5"

	v1 "github.com/chariot-giving/delta/cdc/server/v1"
)

// The endpoints of PGDeltaStream in your own server, for programs on the same machine.
func Example() {
	config, err := pgx.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	handler, err := v1.New(v1.Config{Conn: config})
	if err != nil {
		log.Fatal(err)
	}
	defer handler.Close()
	log.Fatal(http.ListenAndServe("localhost:12312", handler))
}
