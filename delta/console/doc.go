// Package console shows the resources of an installation in a browser, and takes commands for them from authorized users.
//
//	handler, err := console.Handler(client, console.Config{
//		Passwords:  map[string]string{"ann": os.Getenv("ANN_PASSWORD"), "bob": os.Getenv("BOB_PASSWORD")},
//		Authorize:  func(_ *http.Request, c console.Command) bool { return c.User == "ann" },
//	})
//	if err != nil {
//		return err
//	}
//	mux.Handle("/ops/delta/", http.StripPrefix("/ops/delta", handler))
//
// All links are relative, so that it works under any path that ends in a slash, and behind a proxy that adds or removes a prefix. The
// Content-Security-Policy allows the script that is embedded, and all pages work without them. All data come from exported methods of [delta.Client].
//
// # What always holds
//
//   - Without authentication it answers callers of this machine only, by a loopback address, and no address that a proxy names.
//   - Without [Config].Authorize nobody can change anything: there is no button, and a command is refused.
//   - A command is refused unless the browser reports a page of the same origin, and the request has the token of the form.
//   - Each command, and each refusal of one, is logged with the user, the command and the resource.
package console
