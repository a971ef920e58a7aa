// godo goes through everything that the imitation of DigitalOcean's API offers, and takes it away again.
// It fails at the first answer that godo, DigitalOcean's own client, does not find complete.
//
// DIGITALOCEAN_API_URL and DIGITALOCEAN_TOKEN say where; the account has a default VPC in fra1.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"
	"golang.org/x/oauth2"
)

const (
	region    = "fra1"
	publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	deadline  = 30 * time.Second
)

// What may be empty in a complete answer, by godo's type and field.
var mayBeEmpty = []string{
	"Account.StatusMessage",
	"Action.CompletedAt", // until it is completed
	"Domain.ZoneFile",    // in the answer to its creation
	"DomainRecord.Flags", "DomainRecord.Port", "DomainRecord.Priority", "DomainRecord.Tag", "DomainRecord.Weight",
	"Destinations.*", "Sources.*", // all but one of them
	"Droplet.GPUPartitionMode", "Droplet.Kernel", "Droplet.NextBackupWindow", "Droplet.SubnetUUID",
	"ForwardingRule.CertificateID",
	"HealthCheck.Path", "HealthCheck.ProxyProtocol",
	"Image.ErrorMessage",
	"InboundRule.Action", "OutboundRule.Action",
	"LoadBalancer.Domains", "LoadBalancer.GLBSettings", "LoadBalancer.IPv6", "LoadBalancer.SizeSlug",
	"LoadBalancer.Tag", "LoadBalancer.Tags", "LoadBalancer.TargetLoadBalancerIDs", "LoadBalancer.VPCSubnetUUID",
	"LoadBalancer.IP",     // until it is active
	"Project.Environment", // where none was given
	"ReservedIP.Droplet",
	"Size.GPUInfo",
	"StickySessions.CookieName", "StickySessions.CookieTtlSeconds",
	"TaggedResources.Count", "TaggedResources.LastTaggedURI",
	"TaggedDropletsResources.*", "TaggedImagesResources.*", "TaggedVolumesResources.*",
	"TaggedVolumeSnapshotsResources.*", "TaggedDatabasesResources.*", "TaggedResourcesData.*",
	"VPC.Description",
}

var ctx = context.Background()

func main() {
	source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: os.Getenv("DIGITALOCEAN_TOKEN")})
	client, err := godo.New(
		oauth2.NewClient(ctx, source),
		godo.SetBaseURL(os.Getenv("DIGITALOCEAN_API_URL")),
		godo.WithRetryAndBackoffs(godo.RetryConfig{RetryMax: 4}),
	)
	if err != nil {
		fail("%v", err)
	}

	account := must(client.Account.Get(ctx))
	expect(account.Status == "active", "the account is %q", account.Status)
	expect(client.GetRate().Limit == 5000 && !client.GetRate().Reset.IsZero(), "rate %+v", client.GetRate())
	catalogue(client)
	key := keys(client)
	vpc := vpcs(client)
	droplet, others := droplets(client, vpc, key)
	actions(client, droplet)
	tags(client, droplet)
	balancer := balancers(client, vpc, droplet)
	firewalls(client, droplet, balancer)
	ip := reservedIPs(client, droplet)
	domains(client, ip)
	projects(client, droplet, balancer, ip)
	refusals(client, vpc, key)

	done(client.LoadBalancers.Delete(ctx, balancer))
	done(client.ReservedIPs.Delete(ctx, ip))
	done(client.Droplets.Delete(ctx, droplet))
	done(client.Droplets.DeleteByTag(ctx, "others"))
	for _, id := range append(others, droplet) {
		until("the droplet is gone", func() bool {
			_, response, err := client.Droplets.Get(ctx, id)
			return err != nil && response.StatusCode == http.StatusNotFound
		})
	}
	until("the VPC is empty", func() bool {
		members, _, err := client.VPCs.ListMembers(ctx, vpc, nil, nil)
		return err == nil && len(members) == 0
	})
	done(client.VPCs.Delete(ctx, vpc))
	done(client.Keys.DeleteByFingerprint(ctx, key.Fingerprint))
	for _, tag := range list(client.Tags.List) {
		done(client.Tags.Delete(ctx, tag.Name))
	}
}

func catalogue(client *godo.Client) {
	regions, sizes := list(client.Regions.List), list(client.Sizes.List)
	expect(slices.ContainsFunc(regions, func(each godo.Region) bool { return each.Slug == region }), "no %s", region)
	expect(slices.ContainsFunc(sizes, func(each godo.Size) bool { return each.Memory == 4096 }), "no size of 4 GB")
	image := list(client.Images.ListDistribution)[0]
	expect(must(client.Images.GetBySlug(ctx, image.Slug)).ID == image.ID, "another %s", image.Slug)
	expect(must(client.Images.GetByID(ctx, image.ID)).Slug == image.Slug, "another %d", image.ID)
}

func keys(client *godo.Client) *godo.Key {
	other := publicKey[:len(publicKey)-1] + "B"
	key := must(client.Keys.Create(ctx, &godo.KeyCreateRequest{Name: "one", PublicKey: publicKey}))
	second := must(client.Keys.Create(ctx, &godo.KeyCreateRequest{Name: "two", PublicKey: other}))
	expect(len(list(client.Keys.List)) == 2, "not two keys")
	must(client.Keys.UpdateByID(ctx, key.ID, &godo.KeyUpdateRequest{Name: "new"}))
	expect(must(client.Keys.GetByFingerprint(ctx, key.Fingerprint)).Name == "new", "the key has its old name")
	expect(must(client.Keys.GetByID(ctx, key.ID)).PublicKey == publicKey, "another public key")
	done(client.Keys.DeleteByID(ctx, second.ID))
	return key
}

func vpcs(client *godo.Client) string {
	request := &godo.VPCCreateRequest{Name: "vpc", RegionSlug: region, IPRange: "10.1.0.0/16", Description: "words"}
	vpc := must(client.VPCs.Create(ctx, request))
	expect(!vpc.Default && vpc.URN == "do:vpc:"+vpc.ID && vpc.IPRange == request.IPRange, "VPC %+v", vpc)
	expect(len(list(client.VPCs.List)) == 2, "not two VPCs")
	must(client.VPCs.Update(ctx, vpc.ID, &godo.VPCUpdateRequest{Name: "renamed"}))
	must(client.VPCs.Set(ctx, vpc.ID, godo.VPCSetDescription("set")))
	found := must(client.VPCs.Get(ctx, vpc.ID))
	expect(found.Name == "renamed" && found.Description == "set", "VPC %+v", found)
	return vpc.ID
}

func droplets(client *godo.Client, vpc string, key *godo.Key) (int, []int) {
	request := &godo.DropletCreateRequest{
		Name:             "droplet",
		Region:           region,
		Size:             "s-1vcpu-2gb",
		Image:            godo.DropletCreateImage{Slug: "debian-12-x64"},
		SSHKeys:          []godo.DropletCreateSSHKey{{ID: key.ID}, {Fingerprint: key.Fingerprint}},
		UserData:         "#cloud-config\n",
		Monitoring:       true,
		IPv6:             true,
		VPCUUID:          vpc,
		WithDropletAgent: godo.PtrTo(false),
	}
	fresh, response, err := client.Droplets.Create(ctx, request)
	droplet := must(fresh, response, err)
	expect(response.StatusCode == http.StatusAccepted, "status %d", response.StatusCode)
	expect(len(response.Links.Actions) == 1 && response.Links.Actions[0].Rel == "create", "links %+v", response.Links)
	action := must(response.Links.Actions[0].Get(ctx, client))
	await(client, action)
	expect(must(client.DropletActions.Get(ctx, droplet.ID, action.ID)).Type == "create", "another action")
	expect(len(list(func(ctx context.Context, options *godo.ListOptions) ([]godo.Action, *godo.Response, error) {
		return client.Droplets.Actions(ctx, droplet.ID, options)
	})) == 1, "not one action")

	droplet = must(client.Droplets.Get(ctx, droplet.ID))
	public, _ := droplet.PublicIPv4()
	private, _ := droplet.PrivateIPv4()
	ipv6, _ := droplet.PublicIPv6()
	expect(public != "" && strings.HasPrefix(private, "10.1.0.") && ipv6 != "", "networks %v", droplet.Networks)
	expect(droplet.Status == "active" && !droplet.Locked && droplet.VPCUUID == vpc, "droplet %v", droplet)
	expect(slices.Contains(droplet.Features, "monitoring"), "features %v", droplet.Features)
	members, _, err := client.VPCs.ListMembers(ctx, vpc, &godo.VPCListMembersRequest{ResourceType: "droplet"}, nil)
	must(members, nil, err)
	expect(len(members) == 1 && members[0].URN == droplet.URN(), "members %v", members)

	many, response, err := client.Droplets.CreateMultiple(ctx, &godo.DropletMultiCreateRequest{
		Names:  []string{"a", "b"},
		Region: region,
		Size:   "s-1vcpu-2gb",
		Image:  godo.DropletCreateImage{ID: droplet.Image.ID},
		Tags:   []string{"others"},
	})
	must(many, response, err)
	for _, link := range response.Links.Actions {
		await(client, must(link.Get(ctx, client)))
	}
	byTag := list(func(ctx context.Context, options *godo.ListOptions) ([]godo.Droplet, *godo.Response, error) {
		return client.Droplets.ListByTag(ctx, "others", options)
	})
	byName := list(func(ctx context.Context, options *godo.ListOptions) ([]godo.Droplet, *godo.Response, error) {
		return client.Droplets.ListByName(ctx, "droplet", options)
	})
	expect(len(list(client.Droplets.List)) == 3 && len(byTag) == 2 && len(byName) == 1, "not three droplets")
	return droplet.ID, []int{many[0].ID, many[1].ID}
}

func actions(client *godo.Client, droplet int) {
	service := client.DropletActions
	await(client, must(service.PowerOff(ctx, droplet)))
	expect(must(client.Droplets.Get(ctx, droplet)).Status == "off", "the droplet is on")
	await(client, must(service.Resize(ctx, droplet, "s-2vcpu-4gb", true)))
	await(client, must(service.PowerOn(ctx, droplet)))
	await(client, must(service.Rename(ctx, droplet, "renamed")))
	await(client, must(service.Reboot(ctx, droplet)))
	await(client, must(service.PowerCycle(ctx, droplet)))
	policy := &godo.DropletBackupPolicyRequest{Plan: "weekly", Weekday: "SUN", Hour: godo.PtrTo(4)}
	await(client, must(service.EnableBackupsWithPolicy(ctx, droplet, policy)))
	found := must(client.Droplets.Get(ctx, droplet))
	expect(found.Name == "renamed" && found.SizeSlug == "s-2vcpu-4gb" && found.Disk == 80, "droplet %v", found)
	expect(found.NextBackupWindow != nil && !found.NextBackupWindow.Start.IsZero(), "no backups")
	await(client, must(service.DisableBackups(ctx, droplet)))
	await(client, must(service.RebuildByImageSlug(ctx, droplet, "ubuntu-24-04-x64")))
	expect(len(list(client.Actions.List)) > 9, "too few actions")
}

func tags(client *godo.Client, droplet int) {
	resources := []godo.Resource{{ID: strconv.Itoa(droplet), Type: godo.DropletResourceType}}
	must(client.Tags.Create(ctx, &godo.TagCreateRequest{Name: "node"}))
	done(client.Tags.TagResources(ctx, "node", &godo.TagResourcesRequest{Resources: resources}))
	tag := must(client.Tags.Get(ctx, "node"))
	expect(tag.Resources.Droplets.Count == 1 && tag.Resources.Images.Count == 0, "tag %+v", tag.Resources)
	expect(slices.Equal(must(client.Droplets.Get(ctx, droplet)).Tags, []string{"node"}), "the droplet is not tagged")
	expect(len(list(client.Tags.List)) == 2, "not two tags")
	done(client.Tags.UntagResources(ctx, "node", &godo.UntagResourcesRequest{Resources: resources}))
	done(client.Tags.TagResources(ctx, "node", &godo.TagResourcesRequest{Resources: resources}))
}

func balancers(client *godo.Client, vpc string, droplet int) string {
	request := &godo.LoadBalancerRequest{
		Name:            "balancer",
		Region:          region,
		VPCUUID:         vpc,
		ForwardingRules: []godo.ForwardingRule{{EntryProtocol: "tcp", EntryPort: 6443, TargetProtocol: "tcp", TargetPort: 6443}},
		HealthCheck:     &godo.HealthCheck{Protocol: "https", Port: 6443, Path: "/readyz", CheckIntervalSeconds: 10, ResponseTimeoutSeconds: 5, HealthyThreshold: 2, UnhealthyThreshold: 3},
		Tag:             "node",
		Firewall:        &godo.LBFirewall{Allow: []string{"cidr:203.0.113.0/24"}},
	}
	balancer := must(client.LoadBalancers.Create(ctx, request))
	expect(balancer.Status == "new" && balancer.IP == "", "balancer %v", balancer)
	_, response, err := client.LoadBalancers.Update(ctx, balancer.ID, request)
	refused(http.StatusForbidden, response, err)
	active := func() bool {
		found := must(client.LoadBalancers.Get(ctx, balancer.ID))
		return found.Status == "active" && found.IP != ""
	}
	until("the balancer is active", active)
	found := must(client.LoadBalancers.Get(ctx, balancer.ID))
	expect(slices.Equal(found.DropletIDs, []int{droplet}), "droplets %v", found.DropletIDs)
	expect(found.HealthCheck.Path == "/readyz" && found.StickySessions.Type == "none", "balancer %v", found)
	expect(slices.Equal(found.Firewall.Allow, request.Firewall.Allow), "firewall %v", found.Firewall)

	// As the provider does: an update says what was read.
	again := found.AsRequest()
	again.Tag, again.DropletIDs = "", []int{droplet}
	must(client.LoadBalancers.Update(ctx, balancer.ID, again))
	until("the balancer's droplets can be changed", func() bool {
		response, err := client.LoadBalancers.RemoveDroplets(ctx, balancer.ID, droplet)
		return err == nil && response.StatusCode == http.StatusNoContent
	})
	until("the balancer's droplets can be changed", func() bool {
		response, err := client.LoadBalancers.AddDroplets(ctx, balancer.ID, droplet)
		return err == nil && response.StatusCode == http.StatusNoContent
	})
	expect(len(list(client.LoadBalancers.List)) == 1, "not one balancer")
	return balancer.ID
}

func firewalls(client *godo.Client, droplet int, balancer string) {
	request := &godo.FirewallRequest{
		Name: "firewall",
		InboundRules: []godo.InboundRule{
			{Protocol: "tcp", PortRange: "22", Sources: &godo.Sources{Addresses: []string{"203.0.113.0/24", "::/0"}}},
			{Protocol: "tcp", PortRange: "6443", Sources: &godo.Sources{LoadBalancerUIDs: []string{balancer}}},
			{Protocol: "udp", PortRange: "8000-9000", Sources: &godo.Sources{Tags: []string{"node"}, DropletIDs: []int{droplet}}},
			{Protocol: "icmp", Sources: &godo.Sources{Tags: []string{"node"}}},
		},
		OutboundRules: []godo.OutboundRule{
			{Protocol: "tcp", PortRange: "all", Destinations: &godo.Destinations{Addresses: []string{"0.0.0.0/0"}}},
		},
		Tags: []string{"node"},
	}
	firewall := must(client.Firewalls.Create(ctx, request))
	expect(firewall.Status == "waiting" && firewall.PendingChanges[0].DropletID == droplet, "firewall %v", firewall)
	until("the firewall is in force", func() bool {
		found := must(client.Firewalls.Get(ctx, firewall.ID))
		return found.Status == "succeeded" && len(found.PendingChanges) == 0
	})
	ports := []string{}
	for _, rule := range firewall.InboundRules {
		ports = append(ports, rule.PortRange)
	}
	expect(slices.Equal(ports, []string{"22", "6443", "8000-9000", "0"}), "ports %v", ports)
	expect(firewall.OutboundRules[0].PortRange == "0", "ports %v", firewall.OutboundRules)
	byDroplet := list(func(ctx context.Context, options *godo.ListOptions) ([]godo.Firewall, *godo.Response, error) {
		return client.Firewalls.ListByDroplet(ctx, droplet, options)
	})
	expect(len(byDroplet) == 1, "not one firewall")
	must(client.Firewalls.Update(ctx, firewall.ID, &godo.FirewallRequest{
		Name: "firewall", OutboundRules: request.OutboundRules, DropletIDs: []int{droplet},
	}))
	rules := &godo.FirewallRulesRequest{InboundRules: request.InboundRules[:1]}
	done(client.Firewalls.AddRules(ctx, firewall.ID, rules))
	done(client.Firewalls.RemoveRules(ctx, firewall.ID, rules))
	done(client.Firewalls.AddTags(ctx, firewall.ID, "node"))
	done(client.Firewalls.RemoveTags(ctx, firewall.ID, "node"))
	done(client.Firewalls.RemoveDroplets(ctx, firewall.ID, droplet))
	done(client.Firewalls.AddDroplets(ctx, firewall.ID, droplet))
	found := list(client.Firewalls.List)
	expect(len(found) == 1 && len(found[0].InboundRules) == 0 && len(found[0].Tags) == 0, "firewalls %v", found)
	done(client.Firewalls.Delete(ctx, firewall.ID))
}

func reservedIPs(client *godo.Client, droplet int) string {
	reserved := must(client.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: region}))
	expect(reserved.Droplet == nil && reserved.Region.Slug == region, "reserved IP %v", reserved)
	finished := func(action *godo.Action) func() bool {
		return func() bool {
			return must(client.ReservedIPActions.Get(ctx, reserved.IP, action.ID)).CompletedAt != nil
		}
	}
	until("the IP is assigned", finished(must(client.ReservedIPActions.Assign(ctx, reserved.IP, droplet))))
	found := must(client.ReservedIPs.Get(ctx, reserved.IP))
	expect(found.Droplet.ID == droplet && found.Droplet.Region.Slug == region, "reserved IP %v", found)
	until("the IP is unassigned", finished(must(client.ReservedIPActions.Unassign(ctx, reserved.IP))))
	expect(len(list(func(ctx context.Context, options *godo.ListOptions) ([]godo.Action, *godo.Response, error) {
		return client.ReservedIPActions.List(ctx, reserved.IP, options)
	})) == 2, "not two actions")
	_, response, err := client.ReservedIPActions.Unassign(ctx, reserved.IP)
	refused(http.StatusUnprocessableEntity, response, err)
	second, answer, err := client.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{DropletID: droplet})
	must(second, answer, err)
	expect(answer.Links.Actions[0].Rel == "assign_ip", "links %+v", answer.Links)
	await(client, must(answer.Links.Actions[0].Get(ctx, client)))
	expect(len(list(client.ReservedIPs.List)) == 2, "not two reserved IPs")
	done(client.ReservedIPs.Delete(ctx, second.IP))
	return reserved.IP
}

func domains(client *godo.Client, ip string) {
	must(client.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "example.com", IPAddress: ip}))
	request := &godo.DomainRecordEditRequest{Type: "A", Name: "api", Data: ip, TTL: 60}
	record := must(client.Domains.CreateRecord(ctx, "example.com", request))
	expect(record.Name == "api" && record.Data == ip && record.TTL == 60, "record %v", record)
	alias := must(client.Domains.CreateRecord(
		ctx, "example.com", &godo.DomainRecordEditRequest{Type: "CNAME", Name: "www", Data: "api.example.com."}))
	expect(alias.Data == "api.example.com" && alias.TTL == 1800, "record %v", alias)
	request.Name = "other"
	must(client.Domains.EditRecord(ctx, "example.com", record.ID, request))
	expect(must(client.Domains.Record(ctx, "example.com", record.ID)).Name == "other", "the record has its old name")
	records := list(func(ctx context.Context, options *godo.ListOptions) ([]godo.DomainRecord, *godo.Response, error) {
		return client.Domains.Records(ctx, "example.com", options)
	})
	byName := must(client.Domains.RecordsByTypeAndName(ctx, "example.com", "A", "other.example.com", nil))
	expect(len(records) == 6 && len(byName) == 1, "%d records", len(records))
	done(client.Domains.DeleteRecord(ctx, "example.com", record.ID))
	expect(must(client.Domains.Get(ctx, "example.com")).ZoneFile != "", "no zone file")
	expect(len(list(client.Domains.List)) == 1, "not one domain")
	done(client.Domains.Delete(ctx, "example.com"))
}

func projects(client *godo.Client, droplet int, balancer, ip string) {
	start := must(client.Projects.GetDefault(ctx))
	project := must(client.Projects.Create(ctx, &godo.CreateProjectRequest{Name: "project", Purpose: "Web Application", Description: "words"}))
	must(client.Projects.Update(ctx, project.ID, &godo.UpdateProjectRequest{Name: "renamed", Environment: "Staging"}))
	found := must(client.Projects.Get(ctx, project.ID))
	expect(found.Name == "renamed" && found.Environment == "Staging" && !found.IsDefault, "project %v", found)
	urns := []any{godo.ToURN("Droplet", droplet), godo.ToURN("LoadBalancer", balancer), godo.ToURN("ReservedIP", ip)}
	assigned := must(client.Projects.AssignResources(ctx, project.ID, urns...))
	expect(len(assigned) == 3 && assigned[0].Links.Self != "", "resources %v", assigned)
	expect(must(client.LoadBalancers.Get(ctx, balancer)).ProjectID == project.ID, "the balancer is in another project")
	expect(len(list(func(ctx context.Context, options *godo.ListOptions) ([]godo.ProjectResource, *godo.Response, error) {
		return client.Projects.ListResources(ctx, project.ID, options)
	})) == 3, "not three resources")
	response, err := client.Projects.Delete(ctx, project.ID)
	refused(http.StatusPreconditionFailed, response, err)
	must(client.Projects.AssignResources(ctx, start.ID, urns...))
	expect(len(list(client.Projects.List)) == 2, "not two projects")
	done(client.Projects.Delete(ctx, project.ID))
}

func refusals(client *godo.Client, vpc string, key *godo.Key) {
	_, response, err := client.Droplets.Get(ctx, 7)
	refused(http.StatusNotFound, response, err)
	_, response, err = client.VPCs.Get(ctx, "none")
	refused(http.StatusNotFound, response, err)
	_, response, err = client.Keys.Create(ctx, &godo.KeyCreateRequest{Name: key.Name, PublicKey: publicKey})
	refused(http.StatusUnprocessableEntity, response, err)
	response, err = client.VPCs.Delete(ctx, vpc)
	refused(http.StatusConflict, response, err)
}

// must returns an object that was asked for, and sees that nothing is missing in it.
func must[T any](answer T, response *godo.Response, err error) T {
	if err != nil {
		fail("%v", err)
	}
	complete(fmt.Sprintf("%T", answer), reflect.ValueOf(answer))
	return answer
}

// complete fails where a pointer or a list is null, or a text, a number or a time is empty, unless it may be.
func complete(where string, value reflect.Value) {
	switch value.Kind() {
	case reflect.Pointer:
		expect(!value.IsNil(), "%s is null", where)
		complete(where, value.Elem())
	case reflect.Slice:
		expect(!value.IsNil(), "%s is null", where)
		for i := range value.Len() {
			complete(fmt.Sprintf("%s[%d]", where, i), value.Index(i))
		}
	case reflect.Struct:
		if moment, isTime := value.Interface().(time.Time); isTime {
			expect(!moment.IsZero(), "%s is no time", where)
			return
		}
		for i := range value.NumField() {
			name := value.Type().Field(i).Name
			allowed := slices.Contains(mayBeEmpty, value.Type().Name()+"."+name)
			if value.Field(i).IsZero() && (allowed || slices.Contains(mayBeEmpty, value.Type().Name()+".*")) {
				continue
			}
			complete(where+"."+name, value.Field(i))
		}
	case reflect.Bool:
	default:
		expect(!value.IsZero(), "%s is empty", where)
	}
}

// list collects a list by pages of one, and sees that its length is what was said.
func list[T any](page func(context.Context, *godo.ListOptions) ([]T, *godo.Response, error)) []T {
	var all []T
	options := &godo.ListOptions{Page: 1, PerPage: 1}
	for {
		found, response, err := page(ctx, options)
		all = append(all, must(found, response, err)...)
		if response.Links == nil || response.Links.IsLastPage() {
			expect(response.Meta == nil || response.Meta.Total == len(all), "%d of %v", len(all), response.Meta)
			return all
		}
		current, err := response.Links.CurrentPage()
		expect(err == nil && current == options.Page, "page %d is %d: %v", options.Page, current, err)
		options.Page++
	}
}

func await(client *godo.Client, action *godo.Action) {
	until(action.Type+" is completed", func() bool {
		found := must(client.Actions.Get(ctx, action.ID))
		expect(found.Status != "errored", "%s failed", action.Type)
		return found.Status == godo.ActionCompleted && found.CompletedAt != nil
	})
}

func done(response *godo.Response, err error) {
	if err != nil {
		fail("%v", err)
	}
	expect(response.StatusCode == http.StatusNoContent, "status %d", response.StatusCode)
}

func refused(status int, response *godo.Response, err error) {
	var refusal *godo.ErrorResponse
	expect(errors.As(err, &refusal) && response.StatusCode == status, "not refused with %d: %v", status, err)
	expect(refusal.Message != "" && refusal.RequestID != "", "refusal %+v", refusal)
}

func until(what string, so func() bool) {
	for end := time.Now().Add(deadline); !so(); time.Sleep(10 * time.Millisecond) {
		expect(time.Now().Before(end), "not within %v: %s", deadline, what)
	}
}

func expect(so bool, format string, arguments ...any) {
	if !so {
		fail(format, arguments...)
	}
}

func fail(format string, arguments ...any) {
	panic(fmt.Sprintf(format, arguments...))
}
