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

// button gives a command for a kind, an informer, a shard or a namespace.
type button struct {
	Command Command
	// Text is the label. Warning is shown before the button can be pressed; a button without one is shown at once.
	Text, Warning string
	// Back names the page to return to, and Token is the token of the browser's forms.
	Back, Token string
}

// commandPage has what all pages with command buttons need.
type commandPage struct {
	h     *handler
	w     http.ResponseWriter
	r     *http.Request
	user  string
	back  string
	token string
}

// offerButtons returns the buttons that the user may use.
func (p *commandPage) offerButtons(all ...button) (allowed []button) {
	for _, b := range all {
		b.Command.User = p.user
		if !p.h.isAuthorized(p.r, b.Command) {
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

func resumeKindButton(kind string) button {
	return button{Command: Command{Name: CommandResumeKind, Kind: kind}, Text: "Resume " + kind}
}

func pauseKindButton(kind string) button {
	return button{Command: Command{Name: CommandPauseKind, Kind: kind}, Text: "Pause " + kind}
}

func resumeInformerButton(kind string) button {
	return button{Command: Command{Name: CommandResumeInformer, Kind: kind}, Text: "Resume the informer of " + kind}
}

func pauseInformerButton(kind string) button {
	return button{Command: Command{Name: CommandPauseInformer, Kind: kind}, Text: "Pause the informer of " + kind}
}

func runInformerButton(kind string) button {
	return button{Command: Command{Name: CommandInform, Kind: kind}, Text: "Run the informer of " + kind + " now"}
}

func listAllButton(kind string) button {
	return button{Command: Command{Name: CommandInformAll, Kind: kind}, Text: "List all of " + kind + " now"}
}

func resumeShardButton(kind, shard string) button {
	return button{Command: Command{Name: CommandResumeShard, Kind: kind, Shard: shard}, Text: "Resume shard " + shard}
}

func pauseShardButton(kind, shard string) button {
	return button{Command: Command{Name: CommandPauseShard, Kind: kind, Shard: shard}, Text: "Pause shard " + shard}
}

func resumeNamespaceButton(namespace string) button {
	return button{Command: Command{Name: CommandResumeNamespace, Namespace: namespace}, Text: "End the snooze of " + namespace}
}

// decisionButtons returns the buttons for a withheld deletion that is not decided yet.
func decisionButtons(w *delta.Withheld) []button {
	n := strconv.FormatInt(w.Missing, 10)
	of := Command{Kind: w.Kind, Shard: w.Shard, Missing: w.Missing}
	approve, dismiss := of, of
	approve.Name, dismiss.Name = CommandApprove, CommandDismiss
	return []button{
		{Command: dismiss, Text: "Keep the " + n + " resources"},
		{Command: approve, Text: "Allow the deletion of " + n + " resources", Warning: "The next complete listing marks deleted what it leaves out, up to " + n + " resources."},
	}
}

// handleKindCommand executes the command of a form, and redirects the browser.
func (h *handler) handleKindCommand(w http.ResponseWriter, r *http.Request, user string) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
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
	h.executeCommand(w, r, c, known && isNumber, log, h.showCommandError, func(ctx context.Context) (next string, done []any, err error) {
		next, err = do(ctx)
		return cmp.Or(next, backAddress(r.PostFormValue("back"), c.Kind)), nil, err
	})
}

// kindCommands returns a function for each command. It returns the page to show next, or empty for the page with the form.
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
			run, err := h.informRuns.start(c.Kind, all, log)
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

// showCommandError answers with the error of a command for a kind.
func (h *handler) showCommandError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, delta.ErrNotWithheld):
		h.showProblem(w, http.StatusConflict, "The deletion is no longer withheld, or it has grown by now. Look at it again.")
	case errors.Is(err, delta.ErrNotFound):
		h.showProblem(w, http.StatusNotFound, "There is no such kind, shard or namespace.")
	case errors.Is(err, context.DeadlineExceeded):
		h.showProblem(w, http.StatusServiceUnavailable, "It was not done within "+commandTimeout.String()+". It may still be done later: look at the page again.")
	default:
		h.showError(w, r, err)
	}
}

// backAddress returns the address of the page with the form.
func backAddress(back, kind string) string {
	switch {
	case back == "doctor":
		return "doctor"
	case back == "kind" && kind != "":
		return kindAddress(kind)
	}
	return "./"
}

// kindAddress returns the address of the page of a kind, relative to all pages.
func kindAddress(kind string) string {
	return "kind?" + url.Values{"kind": {kind}}.Encode()
}
