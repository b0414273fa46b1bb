// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package command holds the commands that the mesh's own pods run: operator and agent.
package command

import (
	"errors"
	"os"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/operator"
)

// Operator runs the control plane.
func Operator() *cobra.Command {
	o := operator.Options{
		LeaderElection: true, AutomaticLinger: controllers.DefaultAutomaticLinger,
		CARotation: identity.DefaultPolicy,
	}
	level := "info"
	cmd := &cobra.Command{
		Use:   "operator",
		Short: "Run the control plane: reconcilers, xDS server and certificate authority",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := begin(level)
			if err != nil {
				return err
			}
			o.Log = log
			// Without these delays a new CA signs before its root is trusted, or an old root goes while it is needed.
			if o.CARotation.Propagation <= 0 || o.CARotation.Margin <= 0 {
				return errors.New("--ca-propagation and --ca-margin take durations above zero, such as 5m")
			}
			if o.AutomaticLinger <= 0 {
				return errors.New("--automatic-waypoint-linger takes a duration above zero, such as 30s")
			}
			cfg, err := kubeConfig()
			if err != nil {
				return err
			}
			return operator.Run(cmd.Context(), cfg, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Namespace, "namespace", fromEnv(controllers.EnvNamespace, names.SystemNamespace),
		"namespace that the operator runs in")
	f.StringVar(&o.PodName, "pod-name", os.Getenv("POD_NAME"),
		"name of this replica's pod, to tell it from the other replicas")
	f.StringVar(&o.Image, "image", fromEnv(controllers.EnvImage, names.Image), "image of the agents")
	f.StringVar(&o.EnvoyImage, "envoy-image", fromEnv(controllers.EnvEnvoyImage, names.EnvoyImage), "image of the proxies")
	f.BoolVar(&o.LeaderElection, "leader-elect", o.LeaderElection,
		"elect a leader among the replicas; all of them serve proxies")
	f.DurationVar(&o.AutomaticLinger, "automatic-waypoint-linger", o.AutomaticLinger,
		"how long an automatic waypoint stays after the last route of its namespace is gone")
	f.DurationVar(&o.CARotation.Propagation, "ca-propagation", o.CARotation.Propagation,
		"how long a new CA's root is published before the CA signs; longer than any proxy takes to learn of it")
	f.DurationVar(&o.CARotation.Margin, "ca-margin", o.CARotation.Margin,
		"how long beyond the last certificate under it an old root stays trusted, for clocks that differ")
	f.StringVar(&level, "log-level", level, "debug, info or error")
	return cmd
}

func fromEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func kubeConfig() (*rest.Config, error) {
	cfg, err := config.GetConfig()
	if err != nil {
		return nil, errors.Join(errors.New("no Kubernetes configuration: run in a pod, or set KUBECONFIG"), err)
	}
	cfg.UserAgent = "fairway/" + names.Version
	return cfg, nil
}

// begin is what all processes that serve begin with: it bounds their memory, and makes their logger.
func begin(level string) (logr.Logger, error) {
	log, err := newLogger(level)
	if err == nil {
		boundMemory(log)
	}
	return log, err
}

// newLogger makes the process's structured logger.
func newLogger(level string) (logr.Logger, error) {
	var l zapcore.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return logr.Logger{}, errors.Join(errors.New("--log-level takes debug, info or error"), err)
	}
	return zap.New(zap.Level(l), zap.JSONEncoder(func(c *zapcore.EncoderConfig) {
		c.EncodeTime = zapcore.ISO8601TimeEncoder
	})), nil
}
