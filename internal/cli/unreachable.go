// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// knockTime is how long an API server may take to say that it is there. It is for the first question alone, so that a
// wrong address is told of soon.
const knockTime = 5 * time.Second

// knock asks the API server for its version, before anything else is asked: whether it is there, and takes the user's
// credentials. The error is a sentence that says what to check.
func knock(ctx context.Context, cfg *rest.Config, where string) (gitVersion string, err error) {
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return "", fmt.Errorf("the address of the API server in the kubeconfig makes no sense: %w", err)
	}
	who := fmt.Sprintf("the API server %s%s", base, where)
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return "", fmt.Errorf("the credentials of the kubeconfig can't be used: %s", innermost(err))
	}
	found, code, err := askVersion(ctx, client, base)
	if errors.Is(err, context.DeadlineExceeded) && cfg.ExecProvider != nil {
		found, code, err = askVersion(ctx, client, base) // the time may have been that of a login, which is remembered
	}
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return "", ctx.Err()
	case err != nil:
		return "", unreachable(who, base.Hostname(), err)
	case code == http.StatusUnauthorized:
		return "", fmt.Errorf("%s refuses the credentials of the kubeconfig (401): log in again, or choose another --context",
			who)
	case code >= http.StatusInternalServerError:
		return "", passingError{fmt.Errorf("%s answers %d %s: it may be starting, or what it needs is away", who, code,
			http.StatusText(code))}
	}
	return found, nil
}

// askVersion asks for the version, and returns the status of the answer. What is no version is as good as none.
func askVersion(ctx context.Context, client *http.Client, base *url.URL) (gitVersion string, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, knockTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("version").String(), nil)
	if err != nil {
		return "", 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = res.Body.Close() }()
	var found struct {
		GitVersion string `json:"gitVersion"`
	}
	_ = json.NewDecoder(io.LimitReader(res.Body, 1<<16)).Decode(&found)
	return found.GitVersion, res.StatusCode, nil
}

// passingError is one that may pass by itself.
type passingError struct{ error }

func (e passingError) Unwrap() error { return e.error }

// unreachable says why a server can't be reached, and what to check.
func unreachable(who, host string, err error) error {
	var (
		dns     *net.DNSError
		tooLate net.Error
		notTLS  tls.RecordHeaderError
	)
	switch {
	case strings.Contains(err.Error(), "getting credentials"):
		return fmt.Errorf("the credentials of the kubeconfig can't be had: %s", innermost(err))
	case errors.As(err, &dns):
		return passingError{fmt.Errorf("%s can't be found: the name %s can't be looked up (is the kubeconfig the right "+
			"one? DNS, VPN?)", who, host)}
	case certificate(err) != "":
		return fmt.Errorf("%s shows a certificate that is not to be trusted: %s", who, certificate(err))
	case errors.As(err, &notTLS), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return fmt.Errorf("%s doesn't speak TLS: is it the address of an API server?", who)
	case errors.Is(err, syscall.ECONNREFUSED):
		return passingError{fmt.Errorf("%s can't be reached: nobody listens there (does the cluster run? is the address "+
			"right?)", who)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &tooLate) && tooLate.Timeout():
		return passingError{fmt.Errorf("%s does not answer (is the kubeconfig the right one? network, VPN, firewall?)", who)}
	}
	return passingError{fmt.Errorf("%s can't be reached: %s", who, innermost(err))}
}

// certificate says what is wrong with a server's certificate; empty if that is not what the error is about.
func certificate(err error) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &authority):
		return "the kubeconfig's certificate authority has not signed it (is it another cluster by now? " +
			"certificate-authority-data?)"
	case errors.As(err, &name):
		return "it is for other names: " + name.Error()
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired, or the clock of this machine is wrong"
	case errors.As(err, &invalid):
		return invalid.Error()
	}
	return ""
}

// innermost is what an error says without what wraps it.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return oneLine(err.Error())
		}
		err = next
	}
}

// plainly says in few words why something could not be asked.
func plainly(err error) string {
	var wrapped *url.Error
	switch {
	case isDenied(err):
		return "you have no right to create pods/portforward there"
	case apierrors.IsForbidden(err):
		return "you have no right to"
	case apierrors.IsUnauthorized(err):
		return "the API server refuses the credentials of the kubeconfig"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time (--timeout)"
	case errors.As(err, &wrapped):
		return "the API server can't be reached: " + innermost(err)
	}
	return oneLine(err.Error())
}

// isDenied tells whether a port-forward was refused for want of the right to it. client-go hands on what the API server
// says of an upgrade as text alone.
func isDenied(err error) bool {
	return err != nil && strings.Contains(err.Error(), `cannot create resource "pods/portforward"`)
}
