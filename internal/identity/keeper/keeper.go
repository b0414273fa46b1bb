// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package keeper keeps the mesh's CA in the cluster: the leader moves its state along (Keeper), every replica follows
// it (Follow), and the trust bundle is published for agents.
package keeper

import (
	"context"
	"fmt"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

// defaultLeafLifetime is the lifetime of leaves when the Mesh doesn't say.
const defaultLeafLifetime = 24 * time.Hour

// Config is what the Mesh asks for.
type Config struct {
	// Namespace is the operator's own.
	Namespace string
	// TrustDomain of every identity; default names.DefaultTrustDomain.
	TrustDomain string
	// LeafLifetime of every leaf; default defaultLeafLifetime.
	LeafLifetime time.Duration
	// CertManager names the issuer of the intermediate CA; nil for the built-in root.
	CertManager *v1alpha1.IssuerReference
	// Direct says who signs each certificate, and leads to which roots; nil where the operator signs.
	Direct *v1alpha1.CertManagerCertificates
}

// ConfigFor reads the configuration from a Mesh.
func ConfigFor(mesh *v1alpha1.Mesh, namespace string) Config {
	c := Config{Namespace: namespace, TrustDomain: mesh.Spec.TrustDomain}
	if certs := mesh.Spec.Certificates; certs != nil {
		if certs.LeafLifetime != nil {
			c.LeafLifetime = certs.LeafLifetime.Duration
		}
		switch {
		case certs.CertManager == nil:
		case certs.CertManager.Mode == v1alpha1.CertManagerModeDirect:
			c.Direct = certs.CertManager
		default:
			c.CertManager = &certs.CertManager.IssuerRef
		}
	}
	return c
}

// Result says how the CA stands, in the words of the Mesh's condition CertificatesReady.
type Result struct {
	// Ready: there is a CA to sign with, and it is the one that the Mesh asks for.
	Ready bool
	// Signing: there is a CA to sign with, perhaps still the former one.
	Signing bool
	// Reason is one of v1alpha1.MeshReason*.
	Reason string
	// Message is for people.
	Message string
	// RenewalReason and RenewalMessage say why what is there can't be renewed; empty if it can.
	RenewalReason, RenewalMessage string
	// Next is when to reconcile again if nothing changes before; zero for no need.
	Next time.Time
	// bundle is the published trust bundle.
	bundle identity.Bundle
}

// Keeper is run by the leader alone. Its methods may not be called concurrently.
type Keeper struct {
	// Client writes.
	Client client.Client
	// Reader reads past the cache: a rotation step must not be taken on stale state.
	Reader client.Reader
	// Policy is identity.DefaultPolicy if zero.
	Policy identity.Policy
	// RootLifetime is identity.DefaultRootLifetime if zero.
	RootLifetime time.Duration
	// Now is time.Now if nil.
	Now func() time.Time

	// Prober tries an issuer before it signs for the mesh; nil for no trial.
	Prober Prober
	// Changed, if set, is told when there may be more to say.
	Changed func()

	probes probes
	// dropped: cert-manager's objects were seen gone while the built-in root was wanted, in this term of the lead.
	dropped   bool
	droppedIn uint64
	// unrenewed is why the CA that is in use isn't renewed.
	unrenewed *problem
}

// problem is a state of affairs that a person must mend: a reason and a message, no error to retry fast.
type problem struct{ reason, message string }

// Reconcile takes the CA one step further: finds or makes the CA that the configuration asks for, moves the rotation
// on, stores the state in Secret names.CASecret and publishes the trust bundle in ConfigMap names.TrustBundleConfigMap.
// It is idempotent; errors are those of the API server, to be retried.
func (k *Keeper) Reconcile(ctx context.Context, cfg Config) (Result, error) {
	cfg = cfg.withDefaults()
	k.probes.changed, k.unrenewed = k.Changed, nil
	secret, state, bad, err := k.load(ctx, cfg.Namespace)
	if err != nil || bad != nil {
		return refused(bad), err
	}
	published, err := k.published(ctx, cfg.Namespace)
	if err != nil {
		return Result{}, err
	}
	signer, bad, err := k.source(ctx, cfg, state)
	if err != nil {
		return Result{}, err
	}
	obs := identity.Observed{
		Signer: signer, Origin: cfg.origin(), Published: published.bundle,
		TrustDomain: cfg.TrustDomain, LeafLifetime: cfg.LeafLifetime,
	}
	var wake time.Time
	// The second round records that what the first one published is now public.
	for range 2 {
		state, wake = state.Step(obs, k.policy(), k.now())
		if state.Active == nil {
			break
		}
		if secret, err = k.store(ctx, cfg.Namespace, secret, state); err != nil {
			return Result{}, err
		}
		if err := k.publish(ctx, cfg.Namespace, published, state.Bundle()); err != nil {
			return Result{}, err
		}
		published.bundle, obs.Published = state.Bundle(), state.Bundle()
	}
	return k.result(cfg, state, bad, wake), nil
}

// Rest is for a Mesh whose identities are of no CA of the mesh's: nothing is kept. What a former Mesh had made by
// cert-manager goes.
func (k *Keeper) Rest(ctx context.Context, cfg Config) error { return k.dropCertificate(ctx, cfg) }

func refused(p *problem) Result {
	if p == nil {
		return Result{}
	}
	return Result{Reason: p.reason, Message: p.message}
}

func (c Config) withDefaults() Config {
	if c.TrustDomain == "" {
		c.TrustDomain = names.DefaultTrustDomain
	}
	if c.LeafLifetime <= 0 {
		c.LeafLifetime = defaultLeafLifetime
	}
	return c
}

// origin is that of the CA that the configuration asks for.
func (c Config) origin() string {
	switch {
	case c.CertManager != nil:
		return issuerOf(withDefaults(*c.CertManager)).String()
	case c.Direct != nil:
		return issuerOf(withDefaults(c.Direct.IssuerRef)).Origin()
	}
	return identity.OriginBuiltIn
}

// source is the CA that the configuration asks for: a new one, the one that cert-manager issued, or nil.
func (k *Keeper) source(ctx context.Context, cfg Config, state identity.State) (*identity.Signer, *problem, error) {
	if cfg.CertManager != nil {
		return k.certManager(ctx, cfg)
	}
	if cfg.Direct != nil {
		return k.external(ctx, cfg, state)
	}
	if err := k.dropCertificate(ctx, cfg); err != nil {
		return nil, nil, err
	}
	if !state.NeedsRoot(k.now()) {
		return nil, nil, nil
	}
	life := k.RootLifetime
	if life == 0 {
		life = identity.DefaultRootLifetime
	}
	root, err := identity.NewRoot(cfg.TrustDomain, life, k.now())
	return root, nil, err
}

func (k *Keeper) load(ctx context.Context, ns string) (*corev1.Secret, identity.State, *problem, error) {
	secret := &corev1.Secret{}
	err := k.Reader.Get(ctx, client.ObjectKey{Namespace: ns, Name: names.CASecret}, secret)
	if apierrors.IsNotFound(err) {
		return nil, identity.State{}, nil, nil
	}
	if err != nil {
		return nil, identity.State{}, nil, fmt.Errorf("read Secret %s/%s: %w", ns, names.CASecret, err)
	}
	state, err := identity.DecodeState(secret.Data)
	if err != nil {
		// Overwriting it might destroy the only key that running workloads trust.
		return nil, identity.State{}, &problem{v1alpha1.MeshReasonCAInvalid, fmt.Sprintf(
			"Secret %s/%s can't be used: %v. Restore it, or delete it and the operator makes a new CA (running proxies keep "+
				"trusting the old root while their certificates last).",
			ns, names.CASecret, err)}, nil
	}
	return secret, state, nil, nil
}

func (k *Keeper) store(
	ctx context.Context, ns string, old *corev1.Secret, state identity.State,
) (*corev1.Secret, error) {
	data, err := state.Encode()
	if err != nil {
		return nil, err
	}
	if old == nil {
		secret := &corev1.Secret{ObjectMeta: objectMeta(ns, names.CASecret), Data: data, Type: corev1.SecretTypeOpaque}
		if err := k.Client.Create(ctx, secret); err != nil {
			return nil, fmt.Errorf("create Secret %s/%s: %w", ns, names.CASecret, err)
		}
		return secret, nil
	}
	if reflect.DeepEqual(old.Data, data) {
		return old, nil
	}
	// The resource version goes along: two leaders for a moment can't undo each other's step.
	secret := old.DeepCopy()
	secret.Data = data
	if err := k.Client.Update(ctx, secret); err != nil {
		return nil, fmt.Errorf("update Secret %s/%s: %w", ns, names.CASecret, err)
	}
	return secret, nil
}

// publication is the bundle's ConfigMap as it stands.
type publication struct {
	object *corev1.ConfigMap
	bundle identity.Bundle
}

func (k *Keeper) published(ctx context.Context, ns string) (*publication, error) {
	cm := &corev1.ConfigMap{}
	err := k.Reader.Get(ctx, client.ObjectKey{Namespace: ns, Name: names.TrustBundleConfigMap}, cm)
	if apierrors.IsNotFound(err) {
		return &publication{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s/%s: %w", ns, names.TrustBundleConfigMap, err)
	}
	p := &publication{object: cm}
	if b, err := identity.ParseBundle([]byte(cm.Data[names.TrustBundleKey])); err == nil {
		p.bundle = b // what can't be parsed is nobody's bundle, and is overwritten
	}
	return p, nil
}

func (k *Keeper) publish(ctx context.Context, ns string, p *publication, b identity.Bundle) error {
	want := TrustBundle(ns, b)
	if p.object == nil {
		if err := k.Client.Create(ctx, want); err != nil {
			return fmt.Errorf("create ConfigMap %s/%s: %w", ns, want.Name, err)
		}
		p.object = want
		return nil
	}
	if reflect.DeepEqual(p.object.Data, want.Data) {
		return nil
	}
	cm := p.object.DeepCopy()
	cm.Data, cm.BinaryData = want.Data, nil
	if err := k.Client.Update(ctx, cm); err != nil {
		return fmt.Errorf("update ConfigMap %s/%s: %w", ns, want.Name, err)
	}
	p.object = cm
	return nil
}

// TrustBundle is the ConfigMap that proxies of a namespace mount; the deployer of waypoints puts one beside each.
func TrustBundle(ns string, b identity.Bundle) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: objectMeta(ns, names.TrustBundleConfigMap),
		Data:       map[string]string{names.TrustBundleKey: string(b.PEM())},
	}
}

func objectMeta(ns, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{names.LabelManagedBy: names.ManagedBy}}
}

func (k *Keeper) result(cfg Config, state identity.State, bad *problem, wake time.Time) Result {
	now := k.now()
	r := Result{Signing: state.Active.Usable(now), Next: wake, bundle: state.Bundle()}
	if at := now.Add(interval(cfg, bad)); wake.IsZero() || at.Before(wake) {
		r.Next = at
	}
	if k.unrenewed != nil {
		r.RenewalReason, r.RenewalMessage = k.unrenewed.reason, k.unrenewed.message
	}
	switch {
	case bad != nil:
		r.Reason, r.Message = bad.reason, bad.message
		if r.Signing {
			r.Message += fmt.Sprintf(" Until then, certificates are signed by the former CA (%s), which expires at %s.",
				state.Active.Origin, state.Active.NotAfter().UTC().Format(time.RFC3339))
		}
	case !r.Signing:
		r.Reason, r.Message = v1alpha1.MeshReasonPending, "There is no usable CA yet."
	default:
		r.Ready, r.Reason = true, v1alpha1.MeshReasonIssued
		r.Message = signs(state.Active) + k.follows(state)
		if n := len(state.Roots); n > 1 {
			r.Message += fmt.Sprintf(" %d roots are trusted while the change lasts.", n)
		}
	}
	return r
}

// signs says who signs.
func signs(s *identity.Signer) string {
	end := s.NotAfter().UTC().Format(time.RFC3339)
	if s.External != nil {
		return fmt.Sprintf("Each certificate is signed by %s, the last of whose roots expires at %s.", s.External.Issuer, end)
	}
	return fmt.Sprintf("Certificates are signed by the CA from %s, which expires at %s.", s.Origin, end)
}

// follows says who signs next.
func (k *Keeper) follows(state identity.State) string {
	if state.Next == nil {
		return ""
	}
	when := "once its root has reached every proxy"
	if at, known := state.NextSignsFrom(k.policy()); known {
		when += ", from " + at.UTC().Format(time.RFC3339) + " on"
	}
	return fmt.Sprintf(" A new CA from %s is trusted already and signs %s.", state.Next.Origin, when)
}

// interval is how often to look at what Step knows nothing of: the age of the built-in root, and objects of
// cert-manager, on which there is no watch, so that its CRDs may come and go.
func interval(cfg Config, bad *problem) time.Duration {
	switch {
	case bad != nil:
		return 5 * time.Second
	case cfg.CertManager != nil, cfg.Direct != nil:
		return time.Minute
	}
	return 24 * time.Hour
}

func (k *Keeper) policy() identity.Policy {
	if k.Policy == (identity.Policy{}) {
		return identity.DefaultPolicy
	}
	return k.Policy
}

func (k *Keeper) now() time.Time {
	if k.Now == nil {
		return time.Now()
	}
	return k.Now()
}
