// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// secret is what shop sends along, and what the wire should not give away.
const secret = "4111-1111-1111-1111"

// pod is what the demo looks at.
type pod struct {
	name, uid, address string
	restarts           int
}

func (d *demo) pods(ctx context.Context) ([]pod, error) {
	out, err := d.kubectl(ctx, "get", "pods", "-n", namespace, "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name, UID string }
			Status   struct {
				PodIP             string
				ContainerStatuses []struct{ RestartCount int }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	var all []pod
	for _, i := range list.Items {
		p := pod{name: i.Metadata.Name, uid: i.Metadata.UID, address: i.Status.PodIP}
		for _, c := range i.Status.ContainerStatuses {
			p.restarts += c.RestartCount
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b pod) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// watched sends a few requests from shop to reviews while it reads along on both nodes.
func (d *demo) watched(ctx context.Context) ([]segment, error) {
	pods, err := d.pods(ctx)
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for _, p := range pods {
		if a, err := netip.ParseAddr(p.address); err == nil {
			addresses = append(addresses, a)
		}
	}
	w, err := listen(nodes, addresses)
	if err != nil {
		return nil, err
	}
	d.ui.say("%s", d.ui.style(dim, fmt.Sprintf("(capturing on every interface of %s: TCP between the pods of %s)",
		strings.Join(nodes, " and "), namespace)))
	out, askErr := d.fromShop(ctx, true, "get", "-n", "3", "--no-keepalive", "-H", "x-card: "+secret,
		"http://reviews/checkout")
	segments, err := w.end()
	if err := errors.Join(askErr, err); err != nil {
		return nil, err
	}
	d.ui.output(out)
	if len(segments) == 0 {
		return nil, errors.New("the capture saw no packet")
	}
	return segments, nil
}

func (d *demo) plain(ctx context.Context) error {
	segments, err := d.watched(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(segments, func(s segment) bool {
		return bytes.HasPrefix(s.payload, []byte("GET ")) && bytes.Contains(s.payload, []byte(secret))
	})
	if i < 0 {
		return errors.New("the capture did not see the request")
	}
	d.ui.say("One of the %d packets, %s → %s:", len(segments), segments[i].from, segments[i].to)
	d.ui.output(strings.ReplaceAll(string(segments[i].payload), secret, d.ui.style(bold+";"+red, secret)))
	d.ui.bad("the card number is there for anyone to read")
	return nil
}

func (d *demo) encrypted(ctx context.Context) error {
	segments, err := d.watched(ctx)
	if err != nil {
		return err
	}
	ports, records, readable := map[uint16]bool{}, 0, 0
	for _, s := range segments {
		ports[min(s.from.Port(), s.to.Port())] = true
		if tlsRecord(s.payload) {
			records++
		}
		if bytes.Contains(s.payload, []byte(secret)) || bytes.Contains(s.payload, []byte("HTTP/1")) {
			readable++
		}
	}
	s := segments[0]
	d.ui.say("One of the %d packets, %s → %s:", len(segments), s.from, s.to)
	d.ui.output(hex.Dump(s.payload[:min(len(s.payload), 96)]))
	if readable > 0 {
		return fmt.Errorf("%d packets can be read", readable)
	}
	if records == 0 {
		return errors.New("there is no TLS in the packets")
	}
	d.ui.good("%d packets, %d of them begin a TLS record, all on port %v; not one shows a card number or a word of HTTP",
		len(segments), records, keys(ports))
	return nil
}

func keys(set map[uint16]bool) string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, fmt.Sprint(k))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// accessLog shows the line that the receiving node's proxy wrote for the last request. Envoy writes its log in bursts.
func (d *demo) accessLog(ctx context.Context) error {
	args := []string{
		"logs", "-n", system, "-l", "app.kubernetes.io/component=node", "-c", "envoy", "--since=2m",
		"--tail=-1",
	}
	d.ui.command("kubectl " + quote(args))
	var line string
	err := until(ctx, 15*time.Second, "an access log line with both identities", func() error {
		out, err := d.kubectl(ctx, args...)
		if err != nil {
			return err
		}
		for l := range strings.Lines(out) {
			if strings.Contains(l, "inbound-mtls") && strings.Contains(l, "/ns/bookshop/sa/shop") &&
				strings.Contains(l, "/ns/bookshop/sa/reviews") {
				line = l
			}
		}
		if line == "" {
			return errors.New("no line names shop and reviews")
		}
		return nil
	})
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		return fmt.Errorf("the access log is not JSON: %w", err)
	}
	var pretty bytes.Buffer
	enc := json.NewEncoder(&pretty)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(fields); err != nil {
		return err
	}
	text := pretty.String()
	for _, identity := range []string{
		"spiffe://cluster.local/ns/bookshop/sa/shop",
		"spiffe://cluster.local/ns/bookshop/sa/reviews",
	} {
		text = strings.ReplaceAll(text, identity, d.ui.style(bold+";"+green, identity))
	}
	d.ui.output(text)
	return nil
}
