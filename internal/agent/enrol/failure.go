// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"errors"
	"fmt"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

// Causes of a failed attempt: the label of a metric, and the first words of the message for people.
const (
	causeCertificate = "Certificate"
	causeProxy       = "Proxy"
	causeListening   = "Listening"
	causeRules       = "Rules"
	CauseSandbox     = "Sandbox"
	causeRanges      = "Ranges"
)

// captureError is why a pod could not be captured.
type captureError struct {
	cause string
	// advice is what a person can do.
	advice string
	err    error
}

func (f *captureError) Error() string { return f.err.Error() + "; " + f.advice }
func (f *captureError) Unwrap() error { return f.err }

// Fail is a CaptureError.
func Fail(cause, advice string, err error) error {
	return &captureError{cause: cause, advice: advice, err: err}
}

func namespaceFailure(err error) error {
	if netns.Gone(err) {
		return Fail(CauseSandbox, "the agent tries again when the pod has a new one",
			fmt.Errorf("the pod's network namespace is gone: %w", err))
	}
	return Fail(causeRules, "the agent needs the capabilities SYS_ADMIN and NET_ADMIN, and the kernel nf_tables", err)
}

// CauseOf is the label of a failure.
func CauseOf(err error) string {
	var f *captureError
	if errors.As(err, &f) {
		return f.cause
	}
	return "Other"
}
