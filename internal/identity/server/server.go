// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package server is the operator's HTTPS interface for agents: certificates and the trust bundle.
package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"

	"github.com/fairway-mesh/fairway/internal/accept"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/serve"
)

const (
	// maxSignBytes bounds the body of a signing request: a CSR as JSON string and the identity.
	maxSignBytes = 32 << 10
	// maxInFlight bounds signing requests being worked on; more get 503 at once. Whoever asks for the trust bundle proves
	// nothing, and has slots of its own: it can't keep agents from their certificates.
	maxInFlight        = 256
	maxBundlesInFlight = 64
	// maxReportBytes bounds what a caller says fails, and maxReportsInFlight how many say so at a time.
	maxReportBytes     = 512 << 10
	maxReportsInFlight = 16
	// A full node asks for about 250 identities at once when it starts, and then now and then.
	perCallerBurst  = 512
	perCallerPerSec = 50
	// perCallerInFlight bounds what one caller has worked on: an issuer that signs each certificate itself is slow, and
	// one caller must not take all that it can do. Agents ask for four at a time.
	perCallerInFlight = 8
	shutdownTimeout   = 5 * time.Second
)

// Issuer signs; identity.Authority is one.
type Issuer interface {
	Sign(ctx context.Context, csr []byte, id string) (identity.Leaf, error)
	Bundle() identity.Bundle
}

// Callers authenticates; auth.Authenticator is one.
type Callers interface {
	Caller(ctx context.Context, token string, peer netip.Addr) (auth.Caller, error)
}

// Rights authorizes; auth.Authorizer is one.
type Rights interface {
	Scope(c auth.Caller) (auth.Grant, error)
	MayHave(g auth.Grant, id string) error
}

// Server answers agents. Its fields are set before Start and not changed.
type Server struct {
	// Addr is where Start listens, such as ":15012"; unused if Listener is set.
	Addr     string
	Listener net.Listener
	// TLS is the operator's serving configuration (identity.Authority.ServingConfig).
	TLS     *tls.Config
	Issuer  Issuer
	Callers Callers
	Rights  Rights
	// Renewals is told who asks in vain; nil for nobody.
	Renewals *identity.Renewals
	// Listening, if set, is called once Start has bound its address.
	Listening func()
	Log       logr.Logger
	// Registerer gets the count of refusals; nil for none.
	Registerer prometheus.Registerer
}

// NeedLeaderElection makes the manager run the server on every replica.
func (s *Server) NeedLeaderElection() bool { return false }

// Start serves until the context ends, then lets requests under way finish.
func (s *Server) Start(ctx context.Context) error {
	ln := s.Listener
	if ln == nil {
		var err error
		if ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.Addr); err != nil {
			return fmt.Errorf("listen for certificate requests on %s: %w", s.Addr, err)
		}
	}
	if s.Listening != nil {
		s.Listening()
	}
	hs := &http.Server{
		Handler:           s.Handler(),
		TLSConfig:         s.TLS.Clone(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      75 * time.Second, // an issuer may have to be asked
		IdleTimeout:       30 * time.Second, // nobody has proved anything on a connection that only stays
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          quiet(s.Log),
	}
	// Requests that don't finish in time are cut off; agents ask again.
	l := accept.Limit(ln, accept.MaxConnections, accept.MaxPerPeer)
	if err := serve.HTTP(ctx, hs, l, shutdownTimeout); err != nil {
		return fmt.Errorf("serve certificate requests: %w", err)
	}
	return nil
}

// Handler is the HTTP interface without its listener. It is made once: it registers metrics.
func (s *Server) Handler() http.Handler {
	h := &handler{Server: s, limits: accept.NewRates(perCallerPerSec, perCallerBurst), refused: newRefused(s.Registerer)}
	h.inFlight = map[string]int{}
	h.strangers = rate.Sometimes{First: firstStrangers, Interval: time.Second}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+identity.PathTrustBundle, slotted(maxBundlesInFlight, h.trustBundle))
	mux.HandleFunc("POST "+identity.PathSign, slotted(maxInFlight, h.withCaller(h.sign)))
	mux.HandleFunc("POST "+identity.PathFailing, slotted(maxReportsInFlight, h.withCaller(h.failing)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no %s %.100s here", r.Method, r.URL.Path))
	})
	return mux
}

// firstStrangers are logged each; one in a second after that.
const firstStrangers = 20

// handler answers requests.
type handler struct {
	*Server
	limits  *accept.Rates
	refused *prometheus.CounterVec
	// strangers limits what is logged about bad tokens, which anyone may send as often as they like. The metric counts
	// all.
	strangers rate.Sometimes

	mu       sync.Mutex
	inFlight map[string]int // by the UID of the caller's pod; without those that have none
}

// Reasons of a refusal, as values of the label "reason".
const (
	refusedToken       = "unauthenticated"
	refusedForbidden   = "forbidden"
	refusedRequest     = "bad_request"
	refusedFlood       = "too_many"
	refusedUnavailable = "unavailable"
	refusedIssuer      = "issuer"
	refusedInternal    = "internal"
)

func newRefused(r prometheus.Registerer) *prometheus.CounterVec {
	return promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: "fairway_certificates_refused_total", Help: "Certificate requests that this replica refused, by reason.",
	}, []string{"reason"})
}

// slotted bounds how many requests are worked on at a time.
func slotted(n int, next http.HandlerFunc) http.HandlerFunc {
	slots := make(chan struct{}, n)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusServiceUnavailable, errors.New("too many requests at once; ask again later"))
			return
		}
		next(w, r)
	}
}

// withCaller authenticates before the body is read.
func (s *handler) withCaller(next func(http.ResponseWriter, *http.Request, auth.Grant)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		caller, err := s.Callers.Caller(r.Context(), auth.Bearer(r.Header.Values("Authorization")),
			accept.Address(r.RemoteAddr))
		if err != nil {
			s.refuse(w, r, err, "token refused")
			return
		}
		leave, ok := s.enter(caller.PodUID)
		defer leave()
		if !ok || !s.limits.Allow(caller.PodUID) {
			s.refused.WithLabelValues(refusedFlood).Inc()
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusTooManyRequests, errors.New("too many requests from this pod; ask again later"))
			return
		}
		grant, err := s.Rights.Scope(caller)
		if err != nil {
			s.refuse(w, r, err, "caller refused", "caller", caller.String())
			return
		}
		next(w, r, grant)
	}
}

// enter counts a caller's requests under way; ok is false where there are too many. leave must be called in any case.
func (s *handler) enter(uid string) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight[uid] >= perCallerInFlight {
		return func() {}, false
	}
	s.inFlight[uid]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.inFlight[uid]--; s.inFlight[uid] == 0 {
			delete(s.inFlight, uid)
		}
	}, true
}

func (s *handler) sign(w http.ResponseWriter, r *http.Request, g auth.Grant) {
	body, ok := read(w, r, maxSignBytes)
	if !ok {
		return
	}
	var req identity.SignRequest
	if err := json.Unmarshal(body, &req); err != nil {
		fail(w, http.StatusBadRequest,
			errors.New(`the body isn't JSON of the form {"csr": "...", "identity": "spiffe://..."}`))
		return
	}
	if err := s.Rights.MayHave(g, req.Identity); err != nil {
		s.refuse(w, r, err, "certificate refused", "caller", g.Caller.String(), "identity", shorten(req.Identity))
		return
	}
	leaf, err := s.Issuer.Sign(r.Context(), []byte(req.CSR), req.Identity)
	s.note(g, req, err)
	if err != nil {
		s.refuse(w, r, err, "certificate refused", "caller", g.Caller.String(), "identity", shorten(req.Identity))
		return
	}
	s.Log.V(1).Info("certificate issued", "caller", g.Caller.String(), "identity", req.Identity,
		"notAfter", leaf.NotAfter, "serial", leaf.Chain[0].SerialNumber.Text(16))
	reply(w, http.StatusOK, identity.SignResponse{
		CertificateChain: string(leaf.PEM()),
		TrustBundle:      string(s.Issuer.Bundle().PEM()),
		NotAfter:         leaf.NotAfter,
	})
}

// failing notes what the caller can't have of whoever gives identities, as far as it is the caller's to have.
func (s *handler) failing(w http.ResponseWriter, r *http.Request, g auth.Grant) {
	body, ok := read(w, r, maxReportBytes)
	if !ok {
		return
	}
	var req identity.FailingRequest
	if err := json.Unmarshal(body, &req); err != nil || len(req.Failing) > identity.MaxReported {
		fail(w, http.StatusBadRequest, fmt.Errorf(`the body isn't JSON of the form {"failing": [...]} with %d at most`,
			identity.MaxReported))
		return
	}
	var all []identity.Failure
	for _, f := range req.Failing {
		if s.Rights.MayHave(g, f.Identity) == nil { // else it isn't the caller's matter, or not any more
			all = append(all, identity.Failure{
				Identity: f.Identity, Held: f.Held,
				Err: identity.Issuef(identity.IssueSPIRE, "%s", f.Reason[:min(len(f.Reason), identity.MaxReason)]),
			})
		}
	}
	if s.Renewals != nil {
		s.Renewals.Reported(g.Caller.String(), all)
	}
	reply(w, http.StatusOK, struct{}{})
}

// note remembers what became of a request that the caller has the right to make. One that can't be granted as it is
// written is the caller's own matter, and one that came at a busy time says nothing.
func (s *handler) note(g auth.Grant, req identity.SignRequest, err error) {
	var failure *identity.IssueError
	switch {
	case s.Renewals == nil, errors.Is(err, identity.ErrBadRequest):
	case errors.As(err, &failure) && failure.Reason == identity.IssueBusy:
	case err == nil:
		s.Renewals.Renewed(g.Caller.String(), req.Identity)
	default:
		s.Renewals.Failed(identity.Failure{Holder: g.Caller.String(), Identity: req.Identity, Held: req.Held, Err: err})
	}
}

func (s *handler) trustBundle(w http.ResponseWriter, r *http.Request) {
	b := s.Issuer.Bundle()
	if len(b.Roots) == 0 {
		fail(w, http.StatusServiceUnavailable, identity.ErrNotReady)
		return
	}
	tag := `"` + strconv.FormatInt(b.Generation, 10) + `"`
	w.Header().Set("ETag", tag)
	w.Header().Set("Content-Type", "application/x-pem-file")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(b.PEM()) // the client is gone if this fails
}

// refuse answers an error of identity or auth with its status code. Unknown errors keep their text to the log.
func (s *handler) refuse(w http.ResponseWriter, r *http.Request, err error, msg string, kv ...any) {
	code, reason := statusOf(err)
	s.refused.WithLabelValues(reason).Inc()
	log := func() {
		s.Log.Info(msg, append([]any{"from", r.RemoteAddr, "status", code, "reason", err.Error()}, kv...)...)
	}
	if reason == refusedToken {
		s.strangers.Do(log)
	} else {
		log()
	}
	if code == http.StatusInternalServerError {
		err = errors.New("internal error; the operator's log says more")
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	fail(w, code, err)
}

func statusOf(err error) (code int, reason string) {
	var failure *identity.IssueError
	switch {
	case errors.Is(err, auth.ErrUnauthenticated):
		return http.StatusUnauthorized, refusedToken
	case errors.Is(err, auth.ErrForbidden):
		return http.StatusForbidden, refusedForbidden
	case errors.Is(err, identity.ErrBadRequest):
		return http.StatusBadRequest, refusedRequest
	case errors.Is(err, auth.ErrUnavailable), errors.Is(err, identity.ErrNotReady):
		return http.StatusServiceUnavailable, refusedUnavailable
	case errors.As(err, &failure) && failure.Reason == identity.IssueBusy:
		return http.StatusServiceUnavailable, refusedIssuer
	case failure != nil:
		return http.StatusBadGateway, refusedIssuer
	}
	return http.StatusInternalServerError, refusedInternal
}

// read takes the body up to a limit, or answers with an error.
func read(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		fail(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", limit))
		return nil, false
	case err != nil:
		fail(w, http.StatusBadRequest, errors.New("the body can't be read"))
		return nil, false
	}
	return body, true
}

func fail(w http.ResponseWriter, code int, err error) {
	reply(w, code, identity.ErrorResponse{Error: err.Error()})
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) //nolint:errchkjson // the client is gone if this fails
}

func shorten(s string) string { return s[:min(len(s), 300)] }
