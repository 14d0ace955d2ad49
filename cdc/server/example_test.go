package server_test

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc/server"
)

// The server, until Ctrl-C.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	config, err := pgx.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.New(ctx, server.Config{Conn: config, Tables: []string{"shop.*"}, Tokens: []string{os.Getenv("TOKEN")}})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Serve(ctx, listener); err != nil {
		log.Fatal(err)
	}
}
