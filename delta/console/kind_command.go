package console

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"

	"github.com/chariot-giving/delta/delta"
)

// button is one of a command for a kind, an informer, a shard or a namespace.
type button struct {
	Command Command
	// Text is on the button. Warning is shown before it, when it is asked for; empty for a button that is shown at once.
	Text, Warning string
	// Back is the page to go on to, and Token that of the browser's forms.
	Back, Token string
}

// page has what all pages with such buttons need.
type page struct {
	h     *handler
	w     http.ResponseWriter
	r     *http.Request
	user  string
	back  string
	token string
}

// offer returns the buttons that the user may use.
func (p *page) offer(all ...button) (allowed []button) {
	for _, b := range all {
		b.Command.User = p.user
		if !p.h.mayDo(p.r, b.Command) {
			continue
		}
		if p.token == "" {
			p.token = formToken(p.w, p.r)
		}
		b.Back, b.Token = p.back, p.token
		allowed = append(allowed, b)
	}
	return allowed
}

// Buttons of commands.

func resumeKind(kind string) button {
	return button{Command: Command{Name: CommandResumeKind, Kind: kind}, Text: "Resume " + kind}
}

func pauseKind(kind string) button {
	return button{Command: Command{Name: CommandPauseKind, Kind: kind}, Text: "Pause " + kind}
}

func resumeInformer(kind string) button {
	return button{Command: Command{Name: CommandResumeInformer, Kind: kind}, Text: "Resume the informer of " + kind}
}

func pauseInformer(kind string) button {
	return button{Command: Command{Name: CommandPauseInformer, Kind: kind}, Text: "Pause the informer of " + kind}
}

func runInformer(kind string) button {
	return button{Command: Command{Name: CommandInform, Kind: kind}, Text: "Run the informer of " + kind + " now"}
}

func runFullListing(kind string) button {
	return button{Command: Command{Name: CommandInformAll, Kind: kind}, Text: "List all of " + kind + " now"}
}

func resumeShard(kind, shard string) button {
	return button{Command: Command{Name: CommandResumeShard, Kind: kind, Shard: shard}, Text: "Resume shard " + shard}
}

func pauseShard(kind, shard string) button {
	return button{Command: Command{Name: CommandPauseShard, Kind: kind, Shard: shard}, Text: "Pause shard " + shard}
}

func resumeNamespace(namespace string) button {
	return button{Command: Command{Name: CommandResumeNamespace, Namespace: namespace}, Text: "End the snooze of " + namespace}
}

// decide are the buttons of a deletion of which nobody has decided.
func decide(w *delta.Withheld) []button {
	n := strconv.FormatInt(w.Missing, 10)
	of := Command{Kind: w.Kind, Shard: w.Shard, Missing: w.Missing}
	approve, dismiss := of, of
	approve.Name, dismiss.Name = CommandApprove, CommandDismiss
	return []button{
		{Command: dismiss, Text: "Keep the " + n + " resources"},
		{Command: approve, Text: "Allow the deletion of " + n + " resources", Warning: "The next complete listing marks deleted what it leaves out, up to " + n + " resources."},
	}
}

// kindCommand carries out what a form asks for, and sends the browser on.
func (h *handler) kindCommand(w http.ResponseWriter, r *http.Request, user string) {
	r.Body = http.MaxBytesReader(w, r.Body, mostFormBytes)
	c := Command{
		Name: CommandName(r.PostFormValue("command")), User: user, Kind: r.PostFormValue("kind"), Shard: r.PostFormValue("shard"),
		Namespace: r.PostFormValue("namespace"),
	}
	missing, err := strconv.ParseInt(r.PostFormValue("missing"), 10, 64)
	isNumber := err == nil || r.PostFormValue("missing") == ""
	c.Missing = missing
	log := h.config.Logger.With("command", string(c.Name), "kind", c.Kind, "shard", c.Shard, "namespace", c.Namespace, "missing", c.Missing,
		"user", user, "remote", r.RemoteAddr)
	do, known := h.kindCommands(c, log)[c.Name]
	h.carryOut(w, r, c, known && isNumber, log, h.commandFailed, func(ctx context.Context) (next string, done []any, err error) {
		next, err = do(ctx)
		return cmp.Or(next, backAddress(r.PostFormValue("back"), c.Kind)), nil, err
	})
}

// kindCommands do what commands say. They return the page to go on to; empty for the one where the form was.
func (h *handler) kindCommands(c Command, log *slog.Logger) map[CommandName]func(context.Context) (string, error) {
	plain := func(do func(context.Context) error) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) { return "", do(ctx) }
	}
	ofKind := func(do func(context.Context, string) error) func(context.Context) (string, error) {
		return plain(func(ctx context.Context) error { return do(ctx, c.Kind) })
	}
	ofShard := func(do func(context.Context, string, string) error) func(context.Context) (string, error) {
		return plain(func(ctx context.Context) error { return do(ctx, c.Kind, c.Shard) })
	}
	inform := func(all bool) func(context.Context) (string, error) {
		return func(context.Context) (string, error) {
			run, err := h.runs.start(c.Kind, all, log)
			if err != nil {
				return "", err
			}
			return "run?id=" + run.id, nil
		}
	}
	decide := func(do func(context.Context, string, string, int64) (*delta.Withheld, error)) func(context.Context) (string, error) {
		return plain(func(ctx context.Context) error {
			_, err := do(ctx, c.Kind, c.Shard, c.Missing)
			return err
		})
	}
	return map[CommandName]func(context.Context) (string, error){
		CommandPauseKind: ofKind(h.client.PauseKind), CommandResumeKind: ofKind(h.client.ResumeKind),
		CommandPauseInformer: ofKind(h.client.PauseInformer), CommandResumeInformer: ofKind(h.client.ResumeInformer),
		CommandPauseShard: ofShard(h.client.PauseShard), CommandResumeShard: ofShard(h.client.ResumeShard),
		CommandResumeNamespace: plain(func(ctx context.Context) error { return h.client.ResumeNamespace(ctx, c.Namespace) }),
		CommandInform:          inform(false), CommandInformAll: inform(true),
		CommandApprove: decide(h.client.ApproveWithheld), CommandDismiss: decide(h.client.DismissWithheld),
	}
}

// commandFailed answers with the error of a command for a kind.
func (h *handler) commandFailed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, delta.ErrNotWithheld):
		h.problem(w, http.StatusConflict, "The deletion is no longer withheld, or it is of more resources by now. Look at it again.")
	case errors.Is(err, delta.ErrNotFound):
		h.problem(w, http.StatusNotFound, "There is no such kind, shard or namespace.")
	case errors.Is(err, context.DeadlineExceeded):
		h.problem(w, http.StatusServiceUnavailable, "It was not done within "+commandTimeout.String()+". Perhaps it is done later: look at the page again.")
	default:
		h.failed(w, r, err)
	}
}

// backAddress is the page where a form was.
func backAddress(back, kind string) string {
	switch {
	case back == "doctor":
		return "doctor"
	case back == "kind" && kind != "":
		return kindAddress(kind)
	}
	return "./"
}

// kindAddress is the page of a kind, relative to all pages.
func kindAddress(kind string) string {
	return "kind?" + url.Values{"kind": {kind}}.Encode()
}
