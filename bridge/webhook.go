package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/delta"
)

// WebhookConfig configures a webhook. Endpoint, Client, Scheme, Secrets and Handle are required.
type WebhookConfig struct {
	// Endpoint distinguishes webhooks: the ids of deliveries are unique within one. 1 to 255 bytes of UTF-8 without control characters.
	Endpoint string
	// Client receives the informs. It need not be started.
	Client *delta.Client
	// Scheme is how calls are signed: [StandardWebhooks], [GitHub], [Stripe], or one of your own.
	Scheme WebhookScheme
	// Secrets are those that calls may be signed with: one, or, while it is rotated, the former and the next.
	Secrets []string
	// Handle returns the actions for a delivery. It is called outside any transaction, may be called several times for a delivery, and for several at once. No
	// action means that there is nothing to do. An error is answered with 500, so that the sender tries again, unless it wraps [ErrRejected].
	Handle func(ctx context.Context, delivery WebhookDelivery) ([]WebhookAction, error)
	// MaxBody bounds the body, in bytes.
	//
	// Defaults to 1 MiB.
	MaxBody int64
	// Tolerance is how far the time that a call was signed at may be from now, where the scheme signs one.
	//
	// Defaults to 5 minutes.
	Tolerance time.Duration
	// Remember is for how long ids of deliveries are kept: longer than the sender tries again.
	//
	// Defaults to 7 days.
	Remember time.Duration
	// Logger gets what was refused, and why.
	//
	// Defaults to [slog.Default].
	Logger *slog.Logger
}

// WebhookDelivery is a call with a valid signature.
type WebhookDelivery struct {
	// ID is the sender's id of the delivery.
	ID string
	// Header and Body are those of the call. Of the header only what the scheme signs is known to be the sender's.
	Header http.Header
	Body   []byte
}

// WebhookAction is an action of a delivery: one of Inform and Touch is set.
type WebhookAction struct {
	// Inform is an object as the delivery has it; see [delta.Client.Inform].
	Inform delta.Object
	// Touch is an object that has changed, of which the delivery has no more than the id; see [delta.Client.Touch].
	Touch *WebhookTouch
}

// WebhookTouch names an object.
type WebhookTouch struct{ Kind, ID string }

// ErrRejected is wrapped in errors of a [WebhookConfig].Handle for deliveries that it would not take if they came again. They are answered with 422.
var ErrRejected = errors.New("the delivery is rejected")

const (
	defaultMaxBody   = 1 << 20
	defaultTolerance = 5 * time.Minute
	defaultRemember  = 7 * 24 * time.Hour
)

// WithDefaults returns a copy with every field set that was left at zero.
func (c WebhookConfig) WithDefaults() WebhookConfig {
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.Tolerance == 0 {
		c.Tolerance = defaultTolerance
	}
	if c.Remember == 0 {
		c.Remember = defaultRemember
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c WebhookConfig) validate() error {
	switch {
	case c.Endpoint == "" || len(c.Endpoint) > 255:
		return newInvalidError("Endpoint", c.Endpoint, "must be 1 to 255 bytes")
	case c.Client == nil:
		return newInvalidError("Client", "nil", "must be a client")
	case c.Scheme == nil:
		return newInvalidError("Scheme", "nil", "must be StandardWebhooks(), GitHub(), Stripe(), or a scheme of your own")
	case len(c.Secrets) == 0:
		return newInvalidError("Secrets", "", "must have at least one")
	case c.Handle == nil:
		return newInvalidError("Handle", "nil", "must be a function")
	case c.MaxBody < 0:
		return newInvalidError("MaxBody", c.MaxBody, "must be positive, or 0 for the default of 1 MiB")
	case c.Tolerance < 0:
		return newInvalidError("Tolerance", c.Tolerance, "must be positive, or 0 for the default of 5m")
	case c.Remember < 0:
		return newInvalidError("Remember", c.Remember, "must be positive, or 0 for the default of 168h")
	}
	for _, secret := range c.Secrets {
		if secret == "" {
			return newInvalidError("Secrets", "(one of them is empty)", "must have no empty secret: anybody could sign with it")
		}
	}
	return nil
}

// Webhook is a handler for the calls of a webhook. A call that is not signed with one of the secrets, or was signed too long ago, changes nothing. What a delivery leads to is
// committed together with its id, before the call is answered with 2xx: one that comes again is answered so, too, and does nothing.
//
// It answers 200 for what was committed, now or before; 400 for a call that is not of the scheme, or too old; 401 for a wrong signature; 404 where a
// resource that is touched is not there, and 409 where it is deleted; 405 for another method than POST; 413 for a body that is too large; 422 for what cannot
// be taken; and 500 or 503 where the same may succeed later. It returns a [*ConfigError] for a configuration that breaks a rule.
func Webhook(config WebhookConfig) (http.Handler, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("bridge: webhook: %w", err)
	}
	keys, err := config.decodeSecrets()
	if err != nil {
		return nil, fmt.Errorf("bridge: webhook: %w", err)
	}
	return &webhook{config: config, keys: keys}, nil
}

type webhook struct {
	config WebhookConfig
	// keys are the secrets as they sign.
	keys []string
}

// decodeSecrets returns the secrets, decoded if the scheme encodes them.
func (c WebhookConfig) decodeSecrets() ([]string, error) {
	decoder, isDecoder := c.Scheme.(WebhookSecretDecoder)
	if !isDecoder {
		return c.Secrets, nil
	}
	keys := make([]string, len(c.Secrets))
	for i, secret := range c.Secrets {
		key, err := decoder.DecodeSecret(secret)
		if err == nil && key == "" {
			err = errors.New("must not be empty: anybody could sign with it")
		}
		if err != nil {
			return nil, newInvalidError("Secrets", fmt.Sprintf("(number %d is hidden)", i+1), err.Error())
		}
		keys[i] = key
	}
	return keys, nil
}

// answerError is an error with the status that it is answered with. What the sender is told of it is in says.
type answerError struct {
	status int
	says   string
	err    error
}

func (e *answerError) Error() string {
	if e.err == nil {
		return e.says
	}
	return e.says + ": " + e.err.Error()
}

func (e *answerError) Unwrap() error { return e.err }

func newAnswerError(status int, says string, err error) error { return &answerError{status, says, err} }

// ServeHTTP takes a call.
func (w *webhook) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	err := w.receiveCall(r.Context(), to, r)
	if err == nil {
		to.WriteHeader(http.StatusOK)
		return
	}
	status, says := http.StatusInternalServerError, "it failed; try again"
	if known := new(answerError); errors.As(err, &known) {
		status, says = known.status, known.says
	}
	w.config.Logger.Warn("bridge: a call of a webhook was not taken", "endpoint", w.config.Endpoint, "status", status, "error", err)
	if status == http.StatusMethodNotAllowed {
		to.Header().Set("Allow", http.MethodPost)
	}
	http.Error(to, says, status)
}

func (w *webhook) receiveCall(ctx context.Context, to http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return newAnswerError(http.StatusMethodNotAllowed, "only POST is taken", nil)
	}
	body, err := io.ReadAll(http.MaxBytesReader(to, r.Body, w.config.MaxBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return newAnswerError(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", w.config.MaxBody), nil)
	}
	if err != nil {
		return newAnswerError(http.StatusBadRequest, "the body cannot be read", err)
	}
	if err := w.verifySignature(r.Header, body); err != nil {
		return err
	}
	id, err := w.config.Scheme.ID(r.Header, body)
	if err != nil {
		return newAnswerError(http.StatusBadRequest, "the id of the delivery is missing", err)
	}
	delivery := WebhookDelivery{ID: id, Header: r.Header, Body: body}
	actions, err := w.callHandle(ctx, delivery)
	switch {
	case errors.Is(err, ErrRejected):
		return newAnswerError(http.StatusUnprocessableEntity, "the delivery is rejected", err)
	case err != nil:
		return newAnswerError(http.StatusInternalServerError, "it failed; try again", err)
	}
	return w.commitDelivery(ctx, delivery, actions)
}

// verifySignature compares the signature with those of all secrets.
func (w *webhook) verifySignature(header http.Header, body []byte) error {
	signed, err := w.config.Scheme.Parse(header)
	if err != nil {
		return newAnswerError(http.StatusBadRequest, "the signature is missing, or not of the scheme", err)
	}
	isRight := false
	for _, key := range w.keys { // all of them, whichever is right
		isRight = signed.IsBy(key, body) || isRight
	}
	if !isRight {
		return newAnswerError(http.StatusUnauthorized, "the signature is wrong", nil)
	}
	if signed.At.IsZero() {
		return nil
	}
	if age := time.Since(signed.At); age > w.config.Tolerance || age < -w.config.Tolerance {
		return newAnswerError(http.StatusBadRequest, fmt.Sprintf("it was signed more than %s from now", w.config.Tolerance), nil)
	}
	return nil
}

// callHandle calls the user's function, and returns a panic as an error.
func (w *webhook) callHandle(ctx context.Context, delivery WebhookDelivery) (actions []WebhookAction, err error) {
	defer catchPanic(&err)
	return w.config.Handle(ctx, delivery)
}

// commitDelivery writes the actions of a delivery, unless it was received before.
func (w *webhook) commitDelivery(ctx context.Context, delivery WebhookDelivery, actions []WebhookAction) error {
	client := w.config.Client
	err := pgx.BeginTxFunc(ctx, client.Pool(), pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		isFirst, err := client.ReceiveTx(ctx, tx, w.config.Endpoint, delivery.ID, w.config.Remember)
		if err != nil || !isFirst {
			return err
		}
		return w.performActions(ctx, tx, actions)
	})
	refused, known := new(delta.StateError), new(answerError)
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, delta.ErrNotFound):
		return newAnswerError(http.StatusNotFound, "there is no resource of the object", err)
	case errors.As(err, &refused):
		return newAnswerError(http.StatusConflict, "the state of the resource does not allow it", err)
	case errors.As(err, new(*delta.InputError)), errors.As(err, new(*delta.NamespaceError)):
		return newAnswerError(http.StatusUnprocessableEntity, "what the delivery leads to cannot be taken", err)
	}
	return newAnswerError(http.StatusServiceUnavailable, "it was not committed; try again", err)
}

func (w *webhook) performActions(ctx context.Context, tx pgx.Tx, actions []WebhookAction) error {
	var objects []delta.Object
	for _, action := range actions {
		if action.Inform != nil {
			objects = append(objects, action.Inform)
		}
	}
	if _, err := w.config.Client.InformManyTx(ctx, tx, objects, nil); err != nil {
		return err
	}
	for _, action := range actions {
		switch {
		case action.Touch != nil:
			if _, err := w.config.Client.TouchTx(ctx, tx, action.Touch.Kind, action.Touch.ID); err != nil {
				return err
			}
		case action.Inform == nil:
			return newAnswerError(http.StatusInternalServerError, "it failed; try again", errors.New("a WebhookAction must have Inform or Touch"))
		}
	}
	return nil
}
