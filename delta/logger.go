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

// neverTrace is above all levels: an error describes its operation, and a stack of the log call helps nobody.
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

// TemporalLogger returns a logger for a connection to Temporal that is given as [Config].Temporal. It is the SDK's
// log.NewStructuredLogger, except that it logs a failed attempt or pass, which is a failed activity in Temporal, at level
// debug instead of error. The client logs each failure itself, with the resource or the counts of the pass, or the number
// of failures if there are very many. A connection that a client makes has this logger.
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

// isLoggedByClient reports whether a value of a line is an error that the client logs itself: of an attempt, of a pass, or
// of a run of a source.
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
