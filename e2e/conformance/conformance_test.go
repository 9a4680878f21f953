// Package conformance runs the official conformance suite of Gateway API against guards.
//
// The suite does not know that a guard opens a Gateway's port below 1024 higher by 10000, nor that it is to tell
// its results one by one: both is added here, by the options that it has for this. Everything else is as it comes,
// its flags included.
package conformance

import (
	"context"
	"encoding/json"
	"flag"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/net/websocket"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/roundtripper"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

const (
	// What a guard adds to ports below privileged: see "Where it listens" in docs/guard.md.
	privileged = 1024
	shift      = 10000
)

var results = flag.String("results", "", "File to which a JSON object is appended for every test that ended")

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	timeouts := options.TimeoutConfig
	// What the suite itself fills in only later.
	config.SetupTimeoutConfig(&timeouts)
	dialer := &net.Dialer{Timeout: timeouts.RequestTimeout}
	options.RoundTripper = &roundTripper{
		DefaultRoundTripper: roundtripper.DefaultRoundTripper{
			Debug:         options.Debug,
			TimeoutConfig: timeouts,
			CustomDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, opened(address))
			},
		},
	}
	options.WebSocketDialer = &webSocketDialer{dialer}
	options.Hook = tell
	conformance.RunConformanceWithOptions(t, options)
}

// opened is where a guard really opens the port of a Gateway.
func opened(address string) string {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	port, err := strconv.Atoi(text)
	if err != nil || port >= privileged {
		return address
	}
	return net.JoinHostPort(host, strconv.Itoa(port+shift))
}

// roundTripper dials where ports are really opened. What is asked stays as it is: Host headers and the ports of
// redirects are part of what is tested.
type roundTripper struct {
	roundtripper.DefaultRoundTripper
}

func (r *roundTripper) CaptureRoundTrip(request roundtripper.Request) (*roundtripper.CapturedRequest, *roundtripper.CapturedResponse, error) {
	switch request.Protocol {
	case roundtripper.H2Protocol, roundtripper.H2CPriorKnowledgeProtocol:
		// These two dial by themselves, what the URL says.
		if request.Host == "" {
			request.Host = request.URL.Host
		}
		request.URL.Host = opened(withPort(&request.URL))
	}
	return r.DefaultRoundTripper.CaptureRoundTrip(request)
}

type webSocketDialer struct {
	dialer *net.Dialer
}

func (d *webSocketDialer) Dial(target, protocol, origin string) (*websocket.Conn, error) {
	asked, err := websocket.NewConfig(target, origin)
	if err != nil {
		return nil, err
	}
	if protocol != "" {
		asked.Protocol = []string{protocol}
	}
	connection, err := d.dialer.Dial("tcp", opened(withPort(asked.Location)))
	if err != nil {
		return nil, err
	}
	socket, err := websocket.NewClient(asked, connection)
	if err != nil {
		connection.Close()
		return nil, err
	}
	return socket, nil
}

// withPort is the host with its port, which a URL leaves out where it is that of the scheme.
func withPort(location *url.URL) string {
	if location.Port() != "" {
		return location.Host
	}
	switch location.Scheme {
	case "https", "wss":
		return net.JoinHostPort(location.Hostname(), "443")
	default:
		return net.JoinHostPort(location.Hostname(), "80")
	}
}

// result is one line of the results.
type result struct {
	Test string `json:"test"`
	// What the test is about.
	Features []features.FeatureName `json:"features"`
	// Those of them that the class does not claim: why it was skipped.
	Unclaimed []features.FeatureName `json:"unclaimed"`
	// Passed, Failed or Skipped.
	Outcome string `json:"outcome"`
}

func tell(t *testing.T, test suite.ConformanceTest, of *suite.ConformanceTestSuite) {
	if *results == "" {
		return
	}
	ended := result{Test: test.ShortName, Features: slices.Clone(test.Features), Unclaimed: []features.FeatureName{}, Outcome: "Passed"}
	for _, feature := range test.Features {
		if !of.SupportedFeatures.Has(feature) {
			ended.Unclaimed = append(ended.Unclaimed, feature)
		}
	}
	switch {
	case t.Failed():
		ended.Outcome = "Failed"
	case t.Skipped():
		ended.Outcome = "Skipped"
	}
	line, err := json.Marshal(ended)
	if err != nil {
		t.Errorf("a result cannot be written down: %v", err)
		return
	}
	file, err := os.OpenFile(*results, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Errorf("the file of results cannot be opened: %v", err)
		return
	}
	defer file.Close()
	if _, err := file.Write(append(line, '\n')); err != nil {
		t.Errorf("a result cannot be written: %v", err)
	}
}
