package delta

import (
	"log/slog"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
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
