package delta

import (
	"errors"
	"log/slog"
	"os"
	"slices"

	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"github.com/chariot-giving/delta/activities"
)

// neverTrace is above all levels: an error says what was being done, and where it was logged helps nobody who reads it.
const neverTrace = slog.LevelError + 1000

// defaultLogger is zap behind slog: JSON lines on standard output, warnings and errors.
func defaultLogger() *slog.Logger {
	core := zapcore.NewCore(
		zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		zapcore.Lock(os.Stdout),
		zapcore.WarnLevel,
	)
	return slog.New(zapslog.NewHandler(core, zapslog.AddStacktraceAt(neverTrace)))
}

// TemporalLogger is a logger for the connection to Temporal that is given as [Config].Temporal. It is as the SDK's log.NewStructuredLogger, but
// that a failed attempt or pass, which is a failed activity in Temporal, has no line at level error: it is at level debug, since the client logs each
// itself, with the resource or the counts of the pass, or the number of those that fail in masses. The connection that a client makes itself has such a
// logger.
func TemporalLogger(logger *slog.Logger) log.Logger {
	return temporalLogger{log.NewStructuredLogger(logger)}
}

type temporalLogger struct{ log.Logger }

// Error implements log.Logger.
func (l temporalLogger) Error(msg string, keyvals ...any) {
	if slices.ContainsFunc(keyvals, isLoggedByClient) {
		l.Debug(msg, keyvals...)
		return
	}
	log.Skip(l.Logger, 1).Error(msg, keyvals...)
}

// With implements log.WithLogger.
func (l temporalLogger) With(keyvals ...any) log.Logger {
	return temporalLogger{log.With(l.Logger, keyvals...)}
}

// WithCallerSkip implements log.WithSkipCallers.
func (l temporalLogger) WithCallerSkip(depth int) log.Logger {
	return temporalLogger{log.Skip(l.Logger, depth)}
}

// isLoggedByClient reports whether a value of a line is the error of an attempt, of a pass, or of a run of a source, of which the client writes a line of its own.
func isLoggedByClient(value any) bool {
	err, isError := value.(error)
	if !isError {
		return false
	}
	if pass := new(activities.PassError); errors.As(err, &pass) {
		return true
	}
	application := new(temporal.ApplicationError)
	return errors.As(err, &application) && (activities.HasStep(application.Type()) || application.Type() == activities.SourceFailed)
}
