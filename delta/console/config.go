package console

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/messagedb"
)

// Config decides who may see the console, and who may give commands. The zero value is read-only, and answers callers of this machine only.
type Config struct {
	// Authenticate names the user of a request; if it returns false, the request is refused with 401. It is for a server with its own middleware: it
	// reads the session or the header that the middleware has checked. It must be safe for concurrent use. At most one of Authenticate, Passwords and
	// Token may be set.
	Authenticate func(r *http.Request) (user string, ok bool)
	// Passwords are the passwords of HTTP basic authentication, by user. Serve the console over TLS: the browser sends the password with each request.
	Passwords map[string]string
	// Token is a secret of at least 16 bytes that all users share. It is sent as a bearer token, or as the password of HTTP basic authentication with any
	// user name. The log has that name, but it proves nothing. Serve the console over TLS.
	Token string
	// Authorize reports whether a user may give a command. It is called for each button of a page, and again when the command is given. It must be
	// safe for concurrent use.
	//
	// Defaults to nil: nobody may give commands.
	Authorize func(r *http.Request, command Command) bool
	// Redact hides data that must not be seen, such as personal data. It gets a copy of each row before the row is shown, and changes EncodedObject (nil
	// hides it), Metadata, Tags and Errors. For another version of the object, or an error of the log of changes, it gets the current row with that
	// version or error in it. It cannot hide ids, because they are in the addresses of pages. It must be safe for concurrent use.
	//
	// Defaults to nil: everything is shown.
	Redact func(row *deltatype.ResourceRow)
	// TemporalUI is the address of the namespace in Temporal's UI, such as http://localhost:8233/namespaces/default, for links to workflows.
	//
	// Defaults to empty: there are no links.
	TemporalUI string
	// StreamURL is the address of delta stream, for links to the changes of slots as they happen.
	//
	// Defaults to empty: there are no links.
	StreamURL string
	// MessageStore is the message store whose consumers and categories are shown.
	//
	// Defaults to nil: the one in the client's database, in the schema message_store, if there is one.
	MessageStore *messagedb.Client
	// ReadTimeout bounds the reads of one page. A filter that few of many resources match may need longer; its page says so.
	//
	// Defaults to 10 seconds.
	ReadTimeout time.Duration
	// Logger gets a line before and after each command, and a line for each command that is refused.
	//
	// Defaults to slog.Default().
	Logger *slog.Logger
}

// Command is a user's request to change one resource, a kind, its informer, or a namespace.
type Command struct {
	// Name is the command.
	Name CommandName
	// User gives the command; empty if there is no authentication.
	User string
	// Kind and ObjectID name the resource. ObjectID is empty for a command for a kind, and both are empty for a command for a namespace.
	Kind, ObjectID string
	// Shard names a shard of the kind; empty for the whole kind.
	Shard string
	// Namespace is the namespace of CommandResumeNamespace; empty otherwise.
	Namespace string
	// Missing is the number of resources that CommandApprove and CommandDismiss decide about; 0 otherwise.
	Missing int64
	// Filter chooses the resources of a bulk command, such as CommandRetryAll; nil for other commands. Kind is then the only kind of the filter, or
	// empty, and ObjectID is empty.
	Filter *delta.Filter
}

// CommandName names a command. The command line uses the same names.
type CommandName string

// The commands for one resource, each of which calls the method of [delta.Client] of that name.
const (
	CommandRetry      CommandName = "retry"
	CommandInvalidate CommandName = "invalidate"
	CommandDelete     CommandName = "delete"
	CommandRevive     CommandName = "revive"
)

// The commands for all resources that match a filter, each of which is a [delta.BulkCommand].
const (
	CommandRetryAll      CommandName = "retry-all"
	CommandInvalidateAll CommandName = "invalidate-all"
	CommandDeleteAll     CommandName = "delete-all"
	CommandReviveAll     CommandName = "revive-all"
)

// The commands for a kind, an informer, a shard or a namespace.
const (
	CommandPauseKind       CommandName = "pause-kind"
	CommandResumeKind      CommandName = "resume-kind"
	CommandPauseInformer   CommandName = "pause-informer"
	CommandResumeInformer  CommandName = "resume-informer"
	CommandPauseShard      CommandName = "pause-shard"
	CommandResumeShard     CommandName = "resume-shard"
	CommandResumeNamespace CommandName = "resume-namespace"
	// CommandInform runs the informer once, now; CommandInformAll runs it with a full listing.
	CommandInform    CommandName = "inform"
	CommandInformAll CommandName = "inform-all"
	// CommandApprove and CommandDismiss decide about a withheld deletion.
	CommandApprove CommandName = "approve"
	CommandDismiss CommandName = "dismiss"
)

// minTokenBytes is the length of a token that cannot be guessed.
const minTokenBytes = 16

// WithDefaults returns a copy in which unset fields have their defaults.
func (c Config) WithDefaults() Config {
	if c.ReadTimeout == 0 {
		c.ReadTimeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.TemporalUI = strings.TrimRight(c.TemporalUI, "/")
	return c
}

func (c Config) validate(client *delta.Client) error {
	if client == nil {
		return errors.New("console: the client must not be nil")
	}
	ways := 0
	for _, isSet := range []bool{c.Authenticate != nil, c.Passwords != nil, c.Token != ""} {
		if isSet {
			ways++
		}
	}
	if ways > 1 {
		return errors.New("console: at most one of Authenticate, Passwords and Token may be set")
	}
	if c.Token != "" && len(c.Token) < minTokenBytes {
		return fmt.Errorf("console: Token must have at least %d bytes", minTokenBytes)
	}
	if c.Passwords != nil && len(c.Passwords) == 0 {
		return errors.New("console: Passwords must have a user, or be nil for callers of this machine only")
	}
	for _, user := range slices.Sorted(maps.Keys(c.Passwords)) {
		if user == "" || c.Passwords[user] == "" || strings.Contains(user, ":") {
			return fmt.Errorf("console: Passwords %q: a user needs a name without a colon, and a password", user)
		}
	}
	if c.ReadTimeout < 0 {
		return fmt.Errorf("console: ReadTimeout %s: it must not be negative", c.ReadTimeout)
	}
	if c.TemporalUI != "" && !isAddress(c.TemporalUI) {
		return fmt.Errorf("console: TemporalUI %q: it must look like http://localhost:8233/namespaces/default", c.TemporalUI)
	}
	if c.StreamURL != "" && !isAddress(c.StreamURL) {
		return fmt.Errorf("console: StreamURL %q: it must look like http://localhost:8080/", c.StreamURL)
	}
	return nil
}

// isAddress reports whether a text is an http or https address that is safe in a link.
func isAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.Fragment == ""
}
