package console_test

import (
	"net/http"
	"os"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
)

// mountConsole serves the console to users with a password, and lets ann give commands.
func mountConsole(mux *http.ServeMux, client *delta.Client) error {
	handler, err := console.Handler(client, console.Config{
		Passwords:  map[string]string{"ann": os.Getenv("ANN_PASSWORD"), "bob": os.Getenv("BOB_PASSWORD")},
		Authorize:  func(_ *http.Request, c console.Command) bool { return c.User == "ann" },
		TemporalUI: "http://localhost:8233/namespaces/default",
	})
	if err != nil {
		return err
	}
	mux.Handle("/ops/delta/", http.StripPrefix("/ops/delta", handler))
	return nil
}

var _ = mountConsole // shown in docs/console.md
