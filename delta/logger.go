package delta

import (
	"log/slog"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// defaultLogger is zap behind slog: JSON lines on standard output, warnings and errors.
func defaultLogger() *slog.Logger {
	core := zapcore.NewCore(
		zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		zapcore.Lock(os.Stdout),
		zapcore.WarnLevel,
	)
	return slog.New(zapslog.NewHandler(core))
}
