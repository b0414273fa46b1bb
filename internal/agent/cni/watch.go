// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
)

const (
	// settle is how long the directories must be quiet before they are looked at: an installer writes in several steps.
	settle = 50 * time.Millisecond
	// retryAfter a failure that no event may follow.
	retryAfter = 5 * time.Second
)

// Keep installs the plugin and repairs the installation whenever somebody changes the node's CNI directories, until the
// context ends. It leaves the installation in place. report (unless nil) gets the outcome of each attempt.
func (i *Installer) Keep(ctx context.Context, log logr.Logger, report func(error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the CNI directories: %w", err)
	}
	defer func() { _ = w.Close() }()
	for _, dir := range []string{i.ConfDir, i.BinDir} {
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return errors.New("the watch of the CNI directories ended")
			}
			next.Reset(settle)
		case err := <-w.Errors:
			// Events may be lost; what they would have said is read from the directories.
			log.Info("watch of the CNI directories", "reason", err.Error())
			next.Reset(settle)
		case <-next.C:
			changed, err := i.install()
			if err != nil {
				log.Info("the CNI plugin isn't installed, trying again", "reason", err.Error())
				next.Reset(retryAfter)
			} else if changed {
				log.Info("installed the CNI plugin", "directory", i.ConfDir)
			}
			if report != nil {
				report(err)
			}
		}
	}
}
