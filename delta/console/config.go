package console

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/messagedb"
)

// Config says who may see what, and who may act. The zero value is read-only, and answers callers of this machine only.
type Config struct {
	// Authenticate names the user of a request; false refuses it with 401. It is for a server that has its own middleware: it reads the session or the
	// header that the middleware has checked. It must be safe for concurrent use. At most one of Authenticate, Passwords and Token may be set.
	Authenticate func(r *http.Request) (user string, ok bool)
	// Passwords are those of HTTP basic authentication, by user. Serve it over TLS: the browser sends the password with each request.
	Passwords map[string]string
	// Token is a secret of 16 bytes at least that all users share. It comes as a bearer token, or as the password of HTTP basic authentication, whose user is
	// then the name that the log has: anybody who knows the token may say any name. Serve it over TLS.
	Token string
	// Authorize reports whether a command may be given. It is asked for each button of a page, and again when the command comes. It must be safe for
	// concurrent use.
	//
	// Defaults to nil: nobody may give commands.
	Authorize func(r *http.Request, command Command) bool
	// Redact hides what must not be seen, such as personal data, from a copy of each row before it is shown: it sets EncodedObject to nil, or changes it,
	// Metadata, Tags and Errors. For another version of the object, or an error of the log of changes, it is given the row as it is now with that in it. Ids are in the addresses of pages, and cannot be hidden. It must be safe for concurrent use.
	//
	// Defaults to nil: all is shown.
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
	// ReadTimeout is how long the reads of one page may take. A filter that few of many resources match may need longer; its page says so.
	//
	// Defaults to 10 seconds.
	ReadTimeout time.Duration
	// Logger gets a line for each command, before and after it, and for each one that is refused.
	//
	// Defaults to slog.Default().
	Logger *slog.Logger
}

// Command is a request of a user to change one resource, a kind, its informer, or a namespace.
type Command struct {
	// Name is the command.
	Name CommandName
	// User is who gives it; empty where nobody has to say who they are.
	User string
	// Kind and ObjectID name the resource. ObjectID is empty for a command that is about a kind, and both are for one that is about a namespace.
	Kind, ObjectID string
	// Shard names a shard of the kind; empty for all of it.
	Shard string
	// Namespace is that of CommandResumeNamespace; empty otherwise.
	Namespace string
	// Missing is how many resources CommandApprove and CommandDismiss are about; 0 otherwise.
	Missing int64
	// Filter chooses the resources of a command for many, such as CommandRetryAll; nil for the others. Kind is the one kind that it names, or empty, and
	// ObjectID is empty.
	Filter *delta.Filter
}

// CommandName names a command, as the command line does.
type CommandName string

// The commands for one resource, each of which is the method of [delta.Client] of that name.
const (
	CommandRetry      CommandName = "retry"
	CommandInvalidate CommandName = "invalidate"
	CommandDelete     CommandName = "delete"
	CommandRevive     CommandName = "revive"
)

// The commands for all resources that a filter chooses, each of which is a [delta.BulkCommand].
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
	// CommandInform runs the informer once, now, and CommandInformAll has it list everything.
	CommandInform    CommandName = "inform"
	CommandInformAll CommandName = "inform-all"
	// CommandApprove and CommandDismiss decide of a deletion that was withheld.
	CommandApprove CommandName = "approve"
	CommandDismiss CommandName = "dismiss"
)

// leastToken is how long a token must be that cannot be guessed.
const leastToken = 16

// WithDefaults returns a copy in which fields that are not set have their defaults.
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
	if c.Token != "" && len(c.Token) < leastToken {
		return fmt.Errorf("console: Token: it must have %d bytes at least", leastToken)
	}
	if c.Passwords != nil && len(c.Passwords) == 0 {
		return errors.New("console: Passwords must have a user, or be nil for callers of this machine only")
	}
	for user, password := range c.Passwords {
		if user == "" || password == "" || strings.Contains(user, ":") {
			return fmt.Errorf("console: Passwords %q: a user has a name without a colon, and a password", user)
		}
	}
	if c.ReadTimeout < 0 {
		return fmt.Errorf("console: ReadTimeout %s: it must not be negative", c.ReadTimeout)
	}
	if c.TemporalUI != "" && !isAddress(c.TemporalUI) {
		return fmt.Errorf("console: TemporalUI %q: it must be as http://localhost:8233/namespaces/default", c.TemporalUI)
	}
	if c.StreamURL != "" && !isAddress(c.StreamURL) {
		return fmt.Errorf("console: StreamURL %q: it must be as http://localhost:8080/", c.StreamURL)
	}
	return nil
}

// isAddress reports whether a text is an address for links, and nothing that could run.
func isAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.Fragment == ""
}
